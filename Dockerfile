# omad on a CPU:
#   docker build --tag omad .
#   docker run --rm --user "$(id -u)" --volume "$PWD:/work" omad train --preset tiny
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
# Names of extras: docker build --build-arg EXTRAS=mujoco,render,onnx .
ARG EXTRAS=render
# Drawing robots needs a software renderer.
RUN case ",$EXTRAS," in *,mujoco,*|*,all,*) apt-get update \
    && apt-get install --no-install-recommends -y libegl1 libegl-mesa0 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/* ;; esac
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir --constraint /wheels/constraints.txt "$(ls /wheels/*.whl)[$EXTRAS]" && rm -r /wheels
RUN useradd --create-home omad && install -d -o omad /work
USER omad
WORKDIR /work
ENTRYPOINT ["omad"]
CMD ["doctor"]
