package alias

import (
	"strings"

	"onward/internal/address"
)

// understandsTags is the mailbox providers that deliver me+tag to me. To any
// other a tag would mean another mailbox, or none.
var understandsTags = map[address.Domain]bool{
	"gmail.com": true, "googlemail.com": true,

	"outlook.com": true, "hotmail.com": true, "live.com": true, "msn.com": true,
	"outlook.at": true, "outlook.be": true, "outlook.cl": true, "outlook.co.id": true, "outlook.co.il": true,
	"outlook.co.th": true, "outlook.com.ar": true, "outlook.com.au": true, "outlook.com.br": true,
	"outlook.com.gr": true, "outlook.com.tr": true, "outlook.com.vn": true, "outlook.cz": true,
	"outlook.de": true, "outlook.dk": true, "outlook.es": true, "outlook.fr": true, "outlook.hu": true,
	"outlook.ie": true, "outlook.in": true, "outlook.it": true, "outlook.jp": true, "outlook.kr": true,
	"outlook.lv": true, "outlook.my": true, "outlook.ph": true, "outlook.pt": true, "outlook.sa": true,
	"outlook.sg": true, "outlook.sk": true,
	"hotmail.be": true, "hotmail.ca": true, "hotmail.ch": true, "hotmail.co.jp": true, "hotmail.co.uk": true,
	"hotmail.com.ar": true, "hotmail.com.au": true, "hotmail.com.br": true, "hotmail.de": true,
	"hotmail.dk": true, "hotmail.es": true, "hotmail.fi": true, "hotmail.fr": true, "hotmail.gr": true,
	"hotmail.it": true, "hotmail.nl": true, "hotmail.no": true, "hotmail.se": true,
	"live.at": true, "live.be": true, "live.ca": true, "live.cl": true, "live.co.uk": true,
	"live.com.ar": true, "live.com.au": true, "live.com.mx": true, "live.com.pt": true, "live.de": true,
	"live.dk": true, "live.fi": true, "live.fr": true, "live.ie": true, "live.in": true, "live.it": true,
	"live.jp": true, "live.nl": true, "live.no": true, "live.se": true,

	"icloud.com": true, "me.com": true, "mac.com": true,

	"fastmail.com": true, "fastmail.fm": true, "fastmail.net": true, "fastmail.org": true,
	"fastmail.co.uk": true, "fastmail.com.au": true, "fastmail.de": true, "fastmail.es": true,
	"fastmail.in": true, "fastmail.jp": true, "fastmail.mx": true, "fastmail.nl": true, "fastmail.se": true,
	"fastmail.to": true, "fastmail.us": true,
}

// carry adds a tag to a target that understands it, has none of its own, and
// stays an address that every server takes; any other target is left alone.
func carry(to address.Mailbox, tag string) address.Mailbox {
	if tag == "" || !understandsTags[to.Domain] || strings.Contains(to.Local, "+") {
		return to
	}
	tagged := address.Mailbox{Local: to.Local + "+" + tag, Domain: to.Domain}
	if !plain(tagged) || to.IsASCII() && !tagged.IsASCII() {
		return to
	}
	return tagged
}

// Suspect returns a target with the tag "suspect", in place of any other, where
// the target understands tags: a filter there can then act on mail whose author
// is in doubt without a byte of it changed.
func Suspect(to address.Mailbox) address.Mailbox {
	if !understandsTags[to.Domain] {
		return to
	}
	base, _, _ := strings.Cut(to.Local, "+")
	return carry(address.Mailbox{Local: base, Domain: to.Domain}, "suspect")
}
