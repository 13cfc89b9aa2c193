# The image of Forebay: one binary, on a base that has no shell, no package manager and nothing else that could be run.
#
#   docker build --tag ghcr.io/forebay/forebay:dev .
#
# Platforms. Nothing here names an architecture: each platform is built natively, so that neither a cross compiler nor an
# emulator decides what is shipped. For an image of both linux/amd64 and linux/arm64, build each on a machine of that kind,
# push both by digest, and join them:
#
#   docker buildx build --platform linux/arm64 --output type=image,name=ghcr.io/forebay/forebay,push-by-digest=true,push=true .
#   docker buildx imagetools create --tag ghcr.io/forebay/forebay:0.1.0 ghcr.io/forebay/forebay@sha256:… ghcr.io/forebay/forebay@sha256:…
#
# Bases are pinned by tag here. To pin them by digest too:
#
#   --build-arg RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm@sha256:…      (docker buildx imagetools inspect IMAGE)
#   --build-arg RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:…
#
# Reproducible: the same sources and bases give the same bytes, where the times are given too:
#
#   --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" --output type=image,rewrite-timestamp=true,…
#
# Why not static: AWS-LC, SQLite and mimalloc are C. With musl each needs a second C toolchain, and what is shipped would
# run on another libc than what is tested. The binary needs libc, libm and libgcc_s alone, which distroless/cc has, from
# the same Debian release that the binary is built on.
#
# No HEALTHCHECK: one image is the api, the workers, the scaler and commands that end. Whoever runs it says what is healthy;
# `forebay health` is there for that.

ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS toolchain
WORKDIR /src
# Whatever a compiler would write of the time of day.
ENV SOURCE_DATE_EPOCH=0
# Dependencies get a layer of their own, by a recipe made of the manifests. Cache mounts would be simpler, but they stay on
# the machine: a layer travels with `--cache-to`.
ARG CARGO_CHEF_VERSION=0.1.78
RUN cargo install cargo-chef --locked --version "${CARGO_CHEF_VERSION}"

FROM toolchain AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM toolchain AS build
COPY --from=plan /src/recipe.json recipe.json
# Changes only with a manifest or Cargo.lock: some 400 crates.
RUN cargo chef cook --release --locked --package forebay --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --package forebay

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Forebay" \
      org.opencontainers.image.description="A durable task server: what it has accepted is executed, whatever breaks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/forebay/forebay" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /src/LICENSE /usr/share/doc/forebay/LICENSE
COPY --from=build /src/target/release/forebay /usr/local/bin/forebay
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /home/nonroot
# HTTP, gRPC (the api's and the scaler's), metrics and health
EXPOSE 8080 50051 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/forebay"]
