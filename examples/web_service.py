"""An HTTP endpoint: POST the bytes of an image to /predict, get JSON.

    pip install fastapi uvicorn pillow
    BUNDLE=bundle.zip uvicorn web_service:app
    curl --data-binary @photo.jpg http://localhost:8000/predict

The predictor is opened once and serves all requests; it may be called from many threads. FastAPI
runs plain ``def`` endpoints in a pool of threads, so a prediction never blocks the event loop.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request

from runtime import InputError, Predictor

MAX_BYTES = 10_000_000


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # One thread for each call: the requests themselves run side by side.
    with Predictor(os.environ["BUNDLE"], threads=1) as predictor:
        predictor.selftest()  # a machine that computes otherwise must not serve
        app.state.predictor = predictor
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
def health(request: Request) -> dict[str, Any]:
    return request.app.state.predictor.info.to_dict()


@app.post("/predict")
def predict(
    request: Request,
    image: Annotated[bytes, Body(media_type="application/octet-stream")],
    min_probability: float = 0.0,
) -> dict[str, Any]:
    if len(image) > MAX_BYTES:  # a reverse proxy should refuse it before it is read
        raise HTTPException(413, f"the image has {len(image)} bytes; expected at most {MAX_BYTES}")
    try:
        answer = request.app.state.predictor.predict(image, min_probability=min_probability)
    except InputError as exc:  # the caller's fault, which the message explains
        raise HTTPException(422, str(exc)) from exc
    return answer.to_dict()
