"""Fan-out engine for citizen-alert networks: selection, plan, ledger, dispatch, results.

The way through is one direction: action, selection, plan, ledger, dispatch, channel, provider. The README draws it.
"""
