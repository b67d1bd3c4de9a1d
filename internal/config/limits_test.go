package config

import (
	"os"
	"strings"
	"testing"
)

// TestReliability holds every row of RELIABILITY.md 5 against the key that it has and
// the default there, or against what docs/security.md says of a number that is fixed;
// and that no limit is without a row. Those that are in other sections have none here.
func TestReliability(t *testing.T) {
	rows := []struct {
		name  string
		keys  string // with their defaults
		fixed string // on the page
	}{
		{"inbound sessions", "limits.sessions 1000", ""},
		{"sessions per client", "limits.client_sessions 50", "IPv4 address or IPv6 /64"},
		{"connections/min/client", "limits.client_connections_per_minute 300", ""},
		{"messages/min/client", "limits.client_messages_per_minute 500, limits.client_size_per_minute 1GiB", ""},
		{"recipients/transaction", "limits.recipients 100", "one where the sender could not be told"},
		{"messages/session", "limits.messages 100", ""},
		{"command line", "limits.command_line 2048", ""},
		{"body line", "", "of any length"},
		{"header section", "limits.header_size 256KiB, limits.header_fields 1000", ""},
		{"message size", "limits.message 50MiB", ""},
		{"command timeout", "limits.command_timeout 60s", "10s when more than 80 %"},
		{"minimum data rate", "limits.data_rate 500B, limits.session_time 1800s", ""},
		{"errors/session", "limits.errors 10", "one when more than 80 %"},
		{"in-session: until dot sent to D", "limits.delivery_time 45s", ""},
		{"in-session: wait after dot", "limits.answer_time 280s", ""}, // DESIGN.md 9.1: all in all
		{"queue mode timeouts", "limits.connect_timeout 30s", "RFC 5321 4.5.3.2"},
		{"MX tried", "limits.mail_hosts 5, limits.mail_hosts_in_session 2", ""},
		{"concurrency/destination", "delivery.per_destination 20, delivery.per_mailbox 2, delivery.per_mailbox_per_second 1", "five attempts at once"},
		{"retry", "", "after 2, 5, 15, 30 and 60 minutes"},
		{"rate-limited class", "", "15 minutes, doubled to 4 hours"},
		{"queue lifetime", "queue.lifetime 5d", ""},
		{"DSN lifetime", "limits.report_lifetime 1d", ""},
		{"delay notice", "", "mere delay"},
		{"DSN content", "", "the header alone"},
		{"DSNs", "limits.sender_reports_per_hour 10, limits.reports_per_hour 100", ""},
		{"hops", "limits.hops 50", ""},
		{"queue size", "queue.messages 100000, queue.size 20GiB", ""},
		{"free space floor", "limits.free_space 1GiB, limits.free_percent 5", "twice the size of the message"},
		{"SPF", "", "RFC 7208 4.6.4"},
		{"DKIM", "limits.dkim_signatures 8", "RSA keys of 1024 to 4096 bits"},
		{"ARC", "", "50 sets"},
		{"all auth DNS", "dns.timeout 5s, limits.authentication_time 20s", ""},
		{"SRS", "srs.max_age 14d, srs.hash_length 10", ""},
		{"D reply", "", "100 lines"},
		{"shutdown drain", "limits.drain_time 60s", ""},
	}
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(page)), " ")
	left := map[string]string{}
	for _, sec := range sections {
		for _, f := range sec.fields {
			left[sec.name+"."+f.key] = f.fallback
		}
	}
	for _, row := range rows {
		if row.keys == "" && row.fixed == "" || !strings.Contains(text, row.fixed) {
			t.Errorf("%s: no %q on the page", row.name, row.fixed)
		}
		for key := range strings.SplitSeq(row.keys, ", ") {
			if name, want, _ := strings.Cut(key, " "); left[name] != want {
				t.Errorf("%s: %s is %q, want %q", row.name, name, left[name], want)
			} else {
				delete(left, name)
			}
		}
	}
	for _, name := range []string{"limits.sender_domain_per_minute", "limits.alias_per_minute", "limits.in_flight", "limits.return_path_per_day"} {
		delete(left, name)
	}
	for name := range left {
		if strings.HasPrefix(name, "limits.") {
			t.Errorf("%s has no row", name)
		}
	}
}
