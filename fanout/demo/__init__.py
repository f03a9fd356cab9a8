"""The demo: the main job on a whole nation, over real sockets, with every process that production has.

`world` makes people, boards and settings · `crew` starts and ends processes · `story` acts, through the public API ·
`show` draws progress and summary · `picture` draws the country. It is fenced: nothing can leave the machine.
"""
