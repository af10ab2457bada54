import subprocess
import sys

import pytest

pytest.importorskip("openvino", reason="needs cfseg[openvino]")

CODE = """
import gc, os, signal, threading
import numpy as np
import openvino.opset13 as op
from cfseg.networks.openvino_runner import OpenVINORunner, ov

image = op.parameter([1, 1, 8, 8, 8], np.float32)
held = [OpenVINORunner(ov.Model([op.result(op.relu(image))], [image], "relu"), 1)]
other = threading.Thread(target=lambda: (held.clear(), gc.collect()))
other.start()
other.join()
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_heard_after_a_network_is_let_go():
    command = [sys.executable, "-X", "faulthandler", "-c", CODE]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "heard\n")
