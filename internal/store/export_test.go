package store

// SetMaxReplyAddresses changes the bound until the returned function is called.
func SetMaxReplyAddresses(n int) (restore func()) {
	was := maxReplyAddresses
	maxReplyAddresses = n
	return func() { maxReplyAddresses = was }
}
