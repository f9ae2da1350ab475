"""The lab's cloud: AWS's API answered by moto, and a loop that makes what was asked for real on this machine.

`python -m lab.cloud` serves the API on `API`, the lab's own routes beside it (`GET /_lab/status`,
`POST /_lab/shutdown`, and `/_lab/faults` and `/_lab/actions`, which faults.py and actions.py explain), and reads moto's
memory about three times a second: an instance becomes a container, a volume a loop device, a security group packet
filter rules, a load balancer a TCP proxy.
"""

import os
from pathlib import Path

HOST = "127.0.0.1"
PORT = 5566
API = f"http://{HOST}:{PORT}"

# Read by moto when its EC2 part is imported, so it must be set before.
os.environ["MOTO_AMIS_PATH"] = str(Path(__file__).parent / "amis.json")
