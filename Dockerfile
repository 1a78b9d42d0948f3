# syntax=docker/dockerfile:1
#
# Four images, which share everything but what they start:
#
#   for part in plugin prober analysis picker; do
#     docker build --target $part --tag inference-rollouts/$part:0.1.0 .
#   done

FROM python:3.13-slim-bookworm AS package
WORKDIR /src
# The lock file also holds the development tools, so it only fixes the versions here, with its
# markers: some packages stand in it once for each version of Python. Its hashes go: with them pip
# would ask for one of the project itself.
COPY requirements.lock ./
RUN sed -nE 's/^([A-Za-z0-9._-]+==[^\\]*[^\\ ]) *\\?$/\1/p' requirements.lock > constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY plugin/inference_plugin plugin/inference_plugin
COPY analysis/inference_analysis analysis/inference_analysis
COPY picker/inference_picker picker/inference_picker
RUN python -m venv /opt/inference-rollouts \
    && /opt/inference-rollouts/bin/pip install --no-cache-dir --constraint constraints.txt . \
    && /opt/inference-rollouts/bin/python -m compileall -q /opt/inference-rollouts/lib

FROM python:3.13-slim-bookworm AS base
COPY --from=package /opt/inference-rollouts /opt/inference-rollouts
ENV PATH=/opt/inference-rollouts/bin:$PATH PYTHONUNBUFFERED=1
USER 65532:65532

# For the Jobs of AnalysisTemplates, and for `analysis serve`.
FROM base AS analysis
ENTRYPOINT ["inference-rollouts", "analysis"]
CMD ["--help"]

# The pod of a LoRA release.
FROM base AS prober
ENTRYPOINT ["inference-rollouts", "prober"]
CMD ["--help"]

FROM base AS picker
EXPOSE 9002 9003 9090
ENTRYPOINT ["inference-rollouts", "picker", "serve"]
CMD ["--help"]

FROM --platform=$BUILDPLATFORM golang:1.27-bookworm AS bridge
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
WORKDIR /src
COPY plugin/bridge/go.mod plugin/bridge/go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY plugin/bridge/*.go ./
COPY plugin/bridge/pb ./pb
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w" -o /bridge .

# It runs twice in the Argo Rollouts controller's pod: as an init container that copies the bridge
# into a volume of the controller (`cp /plugins/bridge /shared/`), and as the sidecar that serves on a
# socket in another volume of both.
FROM base AS plugin
COPY --from=bridge --chmod=0555 /bridge /plugins/bridge
# The user of the controller's image: the socket is open to its owner only.
USER 999:999
ENTRYPOINT ["inference-rollouts"]
CMD ["plugin", "serve", "--socket", "/run/inference-rollouts/plugin.sock"]
