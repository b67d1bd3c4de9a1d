// Package messages holds sample messages that tests and the demo send, byte for
// byte as they would come in.
package messages

import _ "embed"

// The messages, with CR LF.
var (
	//go:embed newsletter.eml
	Newsletter []byte // multipart, 8-bit, lines that begin with dots; DKIM-signed by paperboat.example
	//go:embed note.eml
	Note []byte // a plain one, from bob@sender.example
	//go:embed bounce.eml
	Bounce []byte // a report that Note was not kept
	//go:embed forged.eml
	Forged []byte // says that it is from security@bank.example
	//go:embed list.eml
	List []byte // from carol@bank.example through a list, whose footer broke the signature
	//go:embed unsigned.eml
	Unsigned []byte // from dora@letters.example, which has a policy but signs nothing
	//go:embed stranger.eml
	Stranger []byte // from someone@nowhere.example, which publishes nothing
)
