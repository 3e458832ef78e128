# A broker in a container:
#
#   docker build -t ringmq .
#   docker run --security-opt seccomp=scripts/seccomp.json --ulimit nofile=1048576:1048576 -p 1883:1883 ringmq
#
# The profile adds io_uring to what containers may do; without it the broker runs on epoll and says so.
# Flags go behind the image's name and replace those of CMD.

FROM rust:1.95-slim-trixie AS build
# aws-lc, the cryptography of TLS, is C.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev cmake make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked --package ringmq --bin ringmq

FROM debian:trixie-slim
RUN useradd --system --uid 1883 --no-create-home --shell /usr/sbin/nologin ringmq
COPY --from=build /build/target/release/ringmq /usr/local/bin/ringmq
USER ringmq
EXPOSE 1883 8883
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/ringmq"]
# Inside of a container every address is the container's own: whom it serves is decided by the published ports.
CMD ["--listen", ":1883", "--allow-anonymous"]
