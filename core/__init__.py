"""Everything of bbtui but the screen: configuration, data, model, training, generation, evaluation."""
