# syntax=docker/dockerfile:1
# The image of `weir serve`. Build with BuildKit: docker build -t weir .

# The same toolchain as in rust-toolchain.toml.
FROM rust:1.95.0-bookworm AS build
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_TERM_COLOR=never
WORKDIR /src
COPY . .
# The caches keep dependencies between builds; what they hold is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin weir \
    && install -D target/dist/weir /out/usr/local/bin/weir \
    && install -D -m 0644 deploy/weir.toml /out/etc/weir/weir.toml \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt \
    && install -d -o 65532 -g 65532 -m 0700 /out/var/lib/weir

FROM debian:bookworm-slim
COPY --from=build /out /
# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 65532:65532
# Only an SQLite database would be written here.
WORKDIR /var/lib/weir
# Public listener, admin API, metrics: as in deploy/weir.toml.
EXPOSE 8080 8081 9464
# SIGTERM drains: let it take longer than server.drain_timeout_ms before killing.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["weir", "health"]
ENTRYPOINT ["weir"]
CMD ["serve", "--config", "/etc/weir/weir.toml"]
