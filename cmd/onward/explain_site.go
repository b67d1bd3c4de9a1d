package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"onward/internal/address"
	"onward/internal/alias"
	"onward/internal/config"
	"onward/internal/resolver"
)

// A site is the server for which something is explained: the configured one,
// or one that stands in for it.
type site struct {
	config  *config.Config
	aliases *alias.Table // nil for the stand-in
}

// standIn is the name of a server that nobody has configured.
const standIn = address.Domain("mx.example.org")

// explainSite reads the configuration if there is one. One that is there, or
// was named, has to be right.
func explainSite(cmd *cobra.Command) (*site, error) {
	flag, _ := cmd.Flags().GetString("config")
	if _, err := config.Find(flag); err != nil {
		return &site{config: &config.Config{
			Hostname: standIn,
			DNS:      config.DNS{Timeout: 5 * time.Second},
			SRS:      config.SRS{Domain: standIn},
			Policy:   config.Policy{DMARC: "enforce", Breaks: "rewrite"},
			Limits:   config.Limits{Message: 50 << 20},
		}}, nil
	}
	cfg, table, err := load(cmd)
	return &site{config: cfg, aliases: table}, err
}

// resolver returns the DNS to ask: that of a file, or else that of the site.
func (s *site) resolver(zone string) (resolver.Resolver, error) {
	if zone == "" {
		return newResolver(s.config)
	}
	f, err := os.Open(zone)
	if err != nil {
		return nil, fmt.Errorf("--zone: %w", err)
	}
	defer f.Close()
	z, err := resolver.ParseZone(zone, f)
	if err != nil {
		return nil, fmt.Errorf("--zone: %w", err)
	}
	return z, nil
}

// printJSON prints data for programs.
func printJSON(w io.Writer, data any) error {
	e := json.NewEncoder(printable{w})
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(data)
}

// A printable passes JSON on, with every character escaped that a terminal might
// obey or hide: encoding/json leaves DEL, the C1 controls and those that turn the
// direction as they are. Each write is whole.
type printable struct{ io.Writer }

func (p printable) Write(b []byte) (int, error) {
	// ASCII, as nearly every line is: there is nothing to escape.
	if !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f }) {
		return p.Writer.Write(b)
	}
	var out bytes.Buffer
	for _, r := range string(b) {
		switch {
		case r == '\n' || strconv.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	_, err := p.Writer.Write(out.Bytes())
	return len(b), err
}

// printPage prints an explanation for people, in colour on a terminal only.
func printPage(w io.Writer, print func(*page)) error {
	out := bufio.NewWriter(w)
	print(&page{w: out, colour: isTerminal(w)})
	return out.Flush()
}
