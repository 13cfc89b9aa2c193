"use strict";
// Draws /openapi.json. Text goes into the page as text, never as markup.
(function () {
  const verbs = ["get", "post", "put", "delete", "patch"];
  let api;

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  // `code` and blank lines are all the Markdown there is.
  function prose(text, tag = "p") {
    return (text || "").split("\n\n").filter(Boolean).map((block) =>
      el(tag, {}, ...block.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part))));
  }

  function resolve(value) {
    if (!value || !value.$ref) return value;
    return value.$ref.slice(2).split("/").reduce((at, key) => at[key], api);
  }

  function typeOf(schema) {
    if (!schema) return ["any"];
    if (schema.$ref) {
      const name = schema.$ref.split("/").pop();
      return [el("a", { href: "#schema-" + name }, name)];
    }
    const choice = schema.anyOf || schema.oneOf;
    if (choice && !schema.type) return choice.flatMap((one, index) => (index ? [" | ", ...typeOf(one)] : typeOf(one)));
    const types = [].concat(schema.type || "any");
    return types.flatMap((type, index) => {
      let name = [type];
      if (type === "array") name = ["array of ", ...typeOf(schema.items)];
      else if (type === "string" && schema.format) name = [schema.format];
      return index ? [" | ", ...name] : name;
    });
  }

  function bounds(schema) {
    if (!schema || schema.$ref) return null;
    const parts = [];
    if (schema.enum) parts.push("one of " + schema.enum.join(", "));
    if (schema.minimum !== undefined || schema.maximum !== undefined) {
      parts.push([schema.minimum !== undefined ? "from " + schema.minimum : "", schema.maximum !== undefined ? "to " + schema.maximum : ""].join(" ").trim());
    }
    if (schema.pattern) parts.push(schema.pattern);
    if (schema.maxItems !== undefined) parts.push("at most " + schema.maxItems + " items");
    if (schema.default !== undefined) parts.push("default " + schema.default);
    return parts.length ? el("div", { class: "soft" }, el("code", {}, parts.join(" · "))) : null;
  }

  function row(name, required, schema, description) {
    return el("tr", {},
      el("th", { scope: "row" }, el("code", {}, name), required ? el("span", { class: "need" }, "required") : null),
      el("td", { class: "kind" }, typeOf(schema)),
      el("td", {}, prose(description, "div"), bounds(schema)));
  }

  function table(rows) {
    return el("div", { class: "table" }, el("table", {}, el("tbody", {}, rows)));
  }

  function example(content) {
    if (!content) return undefined;
    if (content.example !== undefined) return content.example;
    const named = Object.values(content.examples || {});
    if (named.length) return named[named.length - 1].value;
    const schema = resolve(content.schema);
    return schema && schema.example;
  }

  function shown(value) {
    return typeof value === "string" ? value : JSON.stringify(value, null, 2);
  }

  function command(verb, path, op) {
    const parameters = (op.parameters || []).map(resolve);
    const filled = path.replace(/\{(\w+)\}/g, (_, name) => {
      const found = parameters.find((parameter) => parameter.name === name);
      return (found && found.example) || name;
    });
    const streams = JSON.stringify(op.responses).includes("text/event-stream");
    const body = op.requestBody && op.requestBody.content["application/json"];
    let line = "curl " + (streams ? "-N " : "") + (verb === "post" && !body ? "-X POST " : "") + location.origin + filled;
    if (body) line += " \\\n  --json '" + JSON.stringify(example(body)) + "'";
    return line;
  }

  function answers(op) {
    return Object.entries(op.responses).map(([status, answer]) => {
      const full = resolve(answer);
      const [media, content] = Object.entries(full.content || {})[0] || [];
      const value = example(content);
      const headers = Object.keys(full.headers || {}).filter((name) => name !== "X-Request-Id");
      return el("tr", {},
        el("th", { scope: "row" }, el("code", {}, status)),
        el("td", {}, prose(full.description, "div"),
          media ? el("div", { class: "soft" }, media + " ", ...(content.schema ? ["· ", ...typeOf(content.schema)] : [])) : null,
          headers.length ? el("div", { class: "soft" }, "headers ", headers.join(", ")) : null,
          value !== undefined ? el("details", {}, el("summary", {}, "Example"), el("pre", {}, el("code", {}, shown(value)))) : null));
    });
  }

  function operation(verb, path, op) {
    const parameters = (op.parameters || []).map(resolve);
    const card = el("section", { class: "op", id: op.operationId },
      el("h3", {}, el("span", { class: "verb " + verb }, verb.toUpperCase()), el("code", {}, path), el("span", { class: "soft" }, op.summary)),
      prose(op.description));
    if (parameters.length) {
      card.append(el("h4", {}, "Parameters"), table(parameters.map((parameter) =>
        row(parameter.name, parameter.required, parameter.schema, "in " + parameter.in + ". " + (parameter.description || "")))));
    }
    if (op.requestBody) {
      card.append(el("h4", {}, "Body"));
      if (op.requestBody.description) card.append(...prose(op.requestBody.description));
      for (const [media, content] of Object.entries(op.requestBody.content)) {
        card.append(el("p", {}, el("code", {}, media), " ", ...typeOf(content.schema)));
        const value = example(content);
        if (value !== undefined) card.append(el("pre", {}, el("code", {}, shown(value))));
      }
    }
    card.append(el("h4", {}, "Answers"), table(answers(op)));
    card.append(el("h4", {}, "With curl"), el("pre", {}, el("code", {}, command(verb, path, op))));
    return card;
  }

  function schemaCard(name, schema) {
    const card = el("section", { class: "schema", id: "schema-" + name }, el("h3", {}, name), prose(schema.description));
    if (schema.properties) {
      card.append(table(Object.entries(schema.properties).map(([key, value]) =>
        row(key, (schema.required || []).includes(key), value, value.description))));
    } else {
      card.append(el("p", { class: "kind" }, typeOf(schema)), bounds(schema) || "");
    }
    if (schema.example !== undefined) {
      card.append(el("details", {}, el("summary", {}, "Example"), el("pre", {}, el("code", {}, shown(schema.example)))));
    }
    return card;
  }

  function draw() {
    const nav = document.getElementById("nav");
    const main = document.getElementById("main");
    main.replaceChildren(el("h1", {}, api.info.title + " API"), ...prose(api.info.description),
      el("p", { class: "soft" }, "Version " + api.info.version + " · ", el("a", { href: "/openapi.json" }, "openapi.json")));
    nav.append(el("strong", {}, api.info.title));
    for (const tag of api.tags) {
      const list = el("ul");
      main.append(el("h2", { id: "tag-" + tag.name }, tag.name), ...prose(tag.description));
      for (const [path, item] of Object.entries(api.paths)) {
        for (const verb of verbs.filter((verb) => item[verb] && item[verb].tags.includes(tag.name))) {
          main.append(operation(verb, path, item[verb]));
          list.append(el("li", {}, el("a", { href: "#" + item[verb].operationId }, item[verb].summary)));
        }
      }
      nav.append(el("h2", {}, tag.name), list);
    }
    const schemas = Object.entries(api.components.schemas);
    main.append(el("h2", { id: "schemas" }, "schemas"), ...schemas.map(([name, schema]) => schemaCard(name, schema)));
    main.append(el("h2", { id: "errors" }, "error codes"), el("ul", {}, api.components.schemas.Problem.properties.code.enum.map((code) =>
      el("li", {}, el("a", { href: "/docs/errors/" + code }, code)))));
    nav.append(el("h2", {}, "more"), el("ul", {},
      el("li", {}, el("a", { href: "#schemas" }, "Schemas")), el("li", {}, el("a", { href: "#errors" }, "Error codes"))));
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }

  fetch("/openapi.json")
    .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error("status " + answer.status))))
    .then((document) => { api = document; draw(); })
    .catch((error) => { document.getElementById("loading").textContent = "/openapi.json could not be read: " + error.message; });
})();
