//! The compiled tokenizer: the tables in a payload and how they are read.
