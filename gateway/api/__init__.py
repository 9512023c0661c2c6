"""The gateway's HTTP surface: `/v1` for programs, `/` for people."""
