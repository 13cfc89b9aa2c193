// Shows the values where the pointer is. The plots can be read without it.
for (const plot of document.querySelectorAll("[data-plot]")) {
  const { seconds, times, lines } = JSON.parse(plot.dataset.plot);
  const cross = Object.assign(document.createElement("div"), { className: "cross", hidden: true });
  const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  plot.append(cross, tip);
  const show = (event) => {
    const box = plot.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * seconds;
    let nearest = 0;
    times.forEach((time, index) => {
      if (Math.abs(time - at) < Math.abs(times[nearest] - at)) nearest = index;
    });
    const place = (times[nearest] / seconds) * 100;
    const told = lines.filter((line) => line.values[nearest] !== null && line.values[nearest] !== undefined);
    cross.hidden = tip.hidden = told.length === 0;
    cross.style.left = `${place}%`;
    tip.replaceChildren(`${times[nearest].toFixed(1)} s`);
    for (const line of told) {
      const row = document.createElement("div");
      const dot = Object.assign(document.createElement("i"), { className: line.class });
      row.append(dot, `${line.name}  ${line.values[nearest].toLocaleString("en")}`);
      tip.append(row);
    }
    const left = place < 50;
    tip.style.left = left ? `calc(${place}% + 10px)` : "auto";
    tip.style.right = left ? "auto" : `calc(${100 - place}% + 10px)`;
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", () => { cross.hidden = tip.hidden = true; });
}
