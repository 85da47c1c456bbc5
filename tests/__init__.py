"""The tests, in folders that mirror pmt/ and theory/."""
