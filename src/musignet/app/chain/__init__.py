"""What a wallet asks the chain: its coins, a fee rate, to pass a transaction on. Optional: the extra named `chain`."""
