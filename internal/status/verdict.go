package status

import (
	"cmp"
	"fmt"

	"onward/internal/journal"
)

// explain says what authentication found, to somebody who knows none of it.
func explain(s *journal.Story) []finding {
	v := s.Verdict
	if v == nil {
		return nil
	}
	list := []finding{{"SPF", v.SPF, because(spfText(v, s.Client), v.SPFReason)}}
	for _, d := range v.DKIM {
		text := fmt.Sprintf("Signed by %s (selector %s), and unchanged since.", d.Domain, d.Selector)
		if d.Result != "pass" {
			text = because(fmt.Sprintf("A signature in the name of %s (selector %s) that proves nothing", d.Domain, d.Selector), d.Reason)
		}
		list = append(list, finding{"DKIM", d.Result, text})
	}
	if len(v.DKIM) == 0 {
		list = append(list, finding{"DKIM", "none", "Nobody signed it."})
	}
	if v.ARC != "none" && v.ARC != "" {
		list = append(list, finding{"ARC", v.ARC, arcText(v.ARC)})
	}
	return append(list, finding{"DMARC", v.DMARC, dmarcText(v)})
}

// because adds a reason to a sentence.
func because(sentence, reason string) string {
	if reason == "" {
		return sentence + "."
	}
	return sentence + ": " + reason + "."
}

func spfText(v *journal.Verdict, client string) string {
	domain, client := cmp.Or(v.SPFDomain, "The sender's domain"), cmp.Or(client, "the client")
	switch v.SPF {
	case "pass":
		return domain + " lets " + client + " send for it"
	case "fail":
		return domain + " does not let " + client + " send for it"
	case "softfail":
		return domain + " says that " + client + " is probably not its own"
	case "neutral":
		return domain + " says nothing about " + client
	case "none":
		return domain + " does not say who may send for it"
	case "temperror":
		return "The DNS did not say whether " + domain + " lets " + client + " send for it"
	}
	return "What " + domain + " says about who may send for it makes no sense"
}

func arcText(result string) string {
	if result == "pass" {
		return "The chain of those who passed it on is whole."
	}
	return "The chain of those who passed it on is broken."
}

func dmarcText(v *journal.Verdict) string {
	author := cmp.Or(v.Author, "the author's domain")
	switch v.DMARC {
	case "pass":
		return "SPF or DKIM proves that it is from " + author + "."
	case "fail":
		return "Nothing proves that it is from " + author + ", " + wish(v.Policy)
	case "none":
		return author + " asks for no proof."
	case "temperror":
		return "The DNS did not say what " + author + " asks for."
	}
	return "What " + author + " asks for makes no sense."
}

// wish is what the owner of a domain wants done with mail that fails DMARC.
func wish(policy string) string {
	switch policy {
	case "reject":
		return "which wants such mail refused."
	case "quarantine":
		return "which wants such mail treated as suspect."
	}
	return "which wants nothing done about that."
}
