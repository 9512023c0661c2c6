"""A simulated CAN bus: an ICOtronic STU with its sensor nodes and a press, reached over socketcand.

It shares no code with the gateway's protocols, so that both are not wrong in the same way.
"""
