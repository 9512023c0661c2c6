"""edge-gateway: one daemon between factory devices, a store on flash, the LAN and a cloud dataspace."""
