# The image of onward: one static binary, the certificates of the public
# authorities, a user. No shell, no package manager, nothing else to update.

FROM golang:1.26 AS build
RUN apt-get update && apt-get install -y --no-install-recommends libcap2-bin
WORKDIR /src

# Its own layer, so that a change of the code does not download again.
COPY go.mod go.sum ./
RUN go mod download

COPY . .
RUN mkdir -p /image/etc/ssl/certs /image/tmp /image/var/lib /state && chmod 1777 /image/tmp \
	&& mkdir -m 700 /state/onward \
	&& cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
	&& echo 'onward:x:25025:25025:onward:/var/lib/onward:/sbin/nologin' >/image/etc/passwd \
	&& echo 'onward:x:25025:' >/image/etc/group \
	&& CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /image/onward ./cmd/onward \
	&& setcap cap_net_bind_service=+ep /image/onward

FROM scratch

# Copied as a directory: the older of Docker's two builders drops the file's
# capability when it copies a single file. Without it a user other than root
# may not listen on port 25, where the host's network is shared.
COPY --from=build /image/ /

# A new volume gets the mode of the directory that it is mounted on.
COPY --from=build --chown=25025:25025 /state/ /var/lib/

USER 25025:25025
ENV STATE_DIRECTORY=/var/lib/onward
VOLUME /var/lib/onward
EXPOSE 25
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/onward", "health"]
ENTRYPOINT ["/onward"]
CMD ["serve"]
