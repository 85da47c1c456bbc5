"""Work spread over devices and hosts so that the numbers do not depend on how many there are.

The work is cut into *units*, ranges of items whose bounds depend on the problem alone. A unit is
run whole by one device, always by the same compiled programs of the same shapes, and takes its
random numbers from the global indices of its items. Which device of which host runs it, and when,
changes nothing: on one platform results are equal bit by bit for any number of devices and hosts.
Where what comes before a unit is cheap, a device may carry a state from each unit to the next.
Units do not talk to each other, so a device that is slow delays nobody else, and one that is gone
takes nothing with it but the units that it had begun.

- ``units``: the ranges, and how a unit's results are kept as bytes.
- ``devices``: the local devices, one thread each.
- ``pool``: threads for smaller pieces of work, and their answers in order.
- ``store``: finished units in a folder, so that a stopped run is gone on with.
- ``hosts``: several processes of one run, on JAX's distributed runtime.
- ``runtime``: what of that runtime has no public name.
- ``workers``: all of these behind one interface.

Nothing is imported here, so that what needs no JAX does not wait for it.
"""
