# bifrost in an image of one static binary, run as nobody.
#
#   docker build -t bifrost .
#
# BUILDER may be any image with Go, a shell and CA certificates: CI, which has no image registry at hand, passes its own.
ARG BUILDER=docker.io/library/golang:1.26

FROM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/bifrost ./cmd/bifrost \
 && mkdir -p /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/bifrost /bifrost
COPY --from=build --chown=65532:65532 /out/data /data
# The embedded store's default path is ./bifrost.db: it lands in the volume.
WORKDIR /data
VOLUME /data
USER 65532:65532
EXPOSE 8080 8081 8082
ENTRYPOINT ["/bifrost"]
CMD ["serve", "-config", "/etc/bifrost/bifrost.yaml"]
