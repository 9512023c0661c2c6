# The container's image; `make image` gives the arguments. How it is to be run: docs/appliance.md.
ARG BASE=debian:12-slim

# What the package holds, made as for the package: by hash, for either processor, without running anything of it.
FROM --platform=$BUILDPLATFORM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates dpkg-dev make python3-pip
WORKDIR /build
COPY pyproject.toml setup.py README.md ./
COPY debian debian
COPY gateway gateway
ARG TARGETARCH
RUN dpkg-architecture -a"${TARGETARCH:-$(dpkg --print-architecture)}" --force -c make -f debian/rules bundle

FROM ${BASE}
# Compiled once more by content: an image of fixed file times would take Debian's own .pyc for stale.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 python3 \
    && python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3* \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/cache/ldconfig/* /var/log/* \
    && echo 'edge-gateway:x:10001:10001::/var/lib/edge-gateway:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'edge-gateway:x:10001:' >> /etc/group \
    && install -d /etc/edge-gateway/secrets \
    && install -d -o 10001 -g 10001 -m 700 /var/lib/edge-gateway
COPY --from=build /build/debian/build/lib /usr/lib/edge-gateway
COPY --from=build /build/debian/build/made/sbom.cdx.json /usr/share/edge-gateway/sbom.cdx.json
COPY debian/copyright /usr/share/doc/edge-gateway/copyright
COPY --chmod=755 debian/launcher /usr/bin/edge-gateway

# {credential: NAME} is a file where the package has it too, so that one mounted folder brings both.
ENV LANG=C.UTF-8 CREDENTIALS_DIRECTORY=/etc/edge-gateway/secrets
USER 10001:10001
VOLUME /var/lib/edge-gateway
EXPOSE 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=10s --start-period=60s CMD ["edge-gateway", "health"]
ENTRYPOINT ["edge-gateway"]
CMD ["run"]

ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="edge-gateway" \
      org.opencontainers.image.description="OPC UA, CAN and push to SQLite, a LAN API and the cloud" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
