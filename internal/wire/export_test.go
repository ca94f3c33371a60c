package wire

// Idle says that the Inflater holds no decompressor.
func (z *Inflater) Idle() bool { return z.decoder == nil }

// Held is the size of the history that the Inflater keeps, in bytes.
func (z *Inflater) Held() int { return cap(z.history) }
