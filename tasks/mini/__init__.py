"""The built-in suite: six small benchmarks that are drawn on the spot, one per real one, in the official schemas.

Each is the split "mini" of its task, 120 items, and goes through the task's own items, prompts, scorers and metrics.
A picture is 56 x 56 pixels, four cells with one symbol each: a number (digit, die or bar), a shape, a sign, or nothing.

    scene.py     what the cells show, and which side of the split it belongs to
    picture.py   the pixels
    problems.py  questions about a scene, with answer, steps, level and a shortcut that misses
    schemas.py   a problem as a row of each benchmark
    suite.py     the test items
    training.py  training records with five kinds of reward
"""
