"""The remote cache: how results are asked for, sent, packed, signed and checked."""
