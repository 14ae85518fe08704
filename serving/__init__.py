"""The sidecar: follows the users' states and ranks with them over HTTP. The only room that imports starlette and uvicorn."""
