"""The lab's cloud: moto serves AWS's API, and a reconcile loop creates the requested resources on this machine.

`python -m lab.cloud` serves the API on `API`, with the lab's own routes (`GET /_lab/status`, `POST /_lab/shutdown`,
`/_lab/faults` and `/_lab/actions`, described in faults.py and actions.py), and reads moto's memory about three times a
second: an instance becomes a container, a volume a loop device, a security group packet filter rules, a load balancer
a TCP proxy.
"""

import os
from pathlib import Path

HOST = "127.0.0.1"
PORT = 5566
API = f"http://{HOST}:{PORT}"

# moto reads this when its EC2 module is imported.
os.environ["MOTO_AMIS_PATH"] = str(Path(__file__).parent / "amis.json")
