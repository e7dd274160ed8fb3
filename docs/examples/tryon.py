"""A try-on over HTTP by Python's standard library alone: python tryon.py PERSON GARMENT RESULT [MASK]"""

import base64
import json
import mimetypes
import os
import sys
import urllib.error
import urllib.request

SERVER = os.environ.get("DRESSFORM_URL", "http://127.0.0.1:8000")


def picture(path: str) -> str:
    """The file as a data URL."""
    with open(path, "rb") as file:
        return f"data:{mimetypes.guess_type(path)[0]};base64,{base64.b64encode(file.read()).decode()}"


person, garment, result, *masks = sys.argv[1:]
body = {"person": picture(person), "garment": picture(garment), "num_inference_steps": 10, "seed": 7}
if masks:
    body["mask"] = picture(masks[0])
request = urllib.request.Request(
    f"{SERVER}/v2/models/tryon/generate", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
try:
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
except urllib.error.HTTPError as error:
    sys.exit(json.load(error)["error"])
with open(result, "wb") as file:
    file.write(base64.b64decode(answer["images"].partition(",")[2]))
print("seed", answer["seeds"], "in", round(json.loads(answer["info"])["milliseconds"]["total"]), "ms")
