"""A simulated plant: OPC UA PLC and a dataspace that can fail, each in its own process."""
