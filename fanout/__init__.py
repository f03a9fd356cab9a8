"""Fan-out engine for citizen-alert networks: selection, plan, ledger, dispatch, results.

The way through is one direction: action, selection, plan, ledger, dispatch, channel, provider. The README draws it.
"""

import sys

# httpx loads its own command line, with click, pygments and rich, where these are installed: a fifth of a second of
# processor for each sender, between a crash and the next message. Nobody runs that command in here.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
