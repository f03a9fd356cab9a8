"""Who takes part: columns in memory, contacts on disk, a log of changes, snapshots.

`registry.Registry` is for the one process that writes and selects; `view.View` is what it hands to readers;
`replica.Replica` is what a sender has of it. See `registry` for the rules, `ingest` for the import format.

Nothing is imported here: a sender needs `replica`, and neither Arrow nor telephone numbering plans.
"""
