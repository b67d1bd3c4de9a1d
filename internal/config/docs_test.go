package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"onward/internal/address"
)

const docs = "../../docs/configuration.md"

// TestDocs makes the tables of docs/configuration.md from the struct tags, and
// fails when the file has other ones (-update writes them).
func TestDocs(t *testing.T) {
	data, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	block := regexp.MustCompile(`(?s)(<!-- keys of ([a-z ]+) -->\n).*?(<!-- end -->\n)`)
	got := block.ReplaceAllStringFunc(string(data), func(old string) string {
		part := block.FindStringSubmatch(old)
		name := strings.TrimPrefix(part[2], "the top level")
		found[name] = true
		return part[1] + table(t, name) + part[3]
	})
	golden(t, docs, []byte(got))
	for _, sec := range sections {
		if !found[sec.name] {
			t.Errorf("section %q has no table", sec.name)
		}
	}
}

// TestSecurityPage holds that docs/security.md has every limit with its default.
func TestSecurityPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, sec := range sections {
		for _, f := range sec.fields {
			if row := fmt.Sprintf("| `limits.%s` | %s |", f.key, f.fallback); sec.name == "limits" && !strings.Contains(string(page), row) {
				t.Errorf("no %q", row)
			}
		}
	}
}

// table is the keys of a section in Markdown.
func table(t *testing.T, name string) string {
	var b strings.Builder
	b.WriteString("| key | type | default | example | meaning |\n|---|---|---|---|---|\n")
	for _, sec := range sections {
		if sec.name != name {
			continue
		}
		for _, f := range sec.fields {
			if f.doc == "" || f.example == "" && sections[f.typ] == nil {
				t.Errorf("%s.%s lacks a doc or example tag", name, f.key)
			}
			switch {
			case sections[f.typ] != nil:
				fmt.Fprintf(&b, "| `%s` | [below](#%s) | | | %s |\n", f.key, f.key, f.doc)
			default:
				fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` | %s |\n", f.key, f.typeText(), f.fallback, f.example, f.doc)
			}
		}
	}
	return b.String()
}

// typeText is the type of a key for people.
func (f *field) typeText() string {
	bounds := ""
	if f.max != "" {
		bounds = fmt.Sprintf(", %s to %s", f.least(), f.max)
	}
	switch reflect.Zero(f.typ).Interface().(type) {
	case []*Domain, []*Alias:
		return "mapping"
	case []string, []netip.AddrPort:
		return "list"
	case bool:
		return "true or false"
	case int:
		return "number" + bounds
	case int64:
		return "size" + bounds
	case time.Duration:
		return "time" + bounds
	case time.Time:
		return "date"
	case address.Domain:
		return "name"
	case address.Mailbox:
		return "address"
	case netip.Addr:
		return "IP address"
	}
	switch {
	case f.enum != nil:
		return strings.Join(f.enum, ", ")
	case f.is == "path" || f.is == "file" || f.is == "certificate":
		return "file"
	}
	return "text"
}

// TestExamples loads the example of every key, each in a file of its own.
func TestExamples(t *testing.T) {
	for _, sec := range sections {
		for _, f := range sec.fields {
			if f.is == "file" || f.is == "certificate" || f.key == "include" || sections[f.typ] != nil {
				continue // these need files, or have no example
			}
			line := fmt.Sprintf("%s: %s", f.key, f.example)
			text := shortest
			switch {
			case sec.name == "domain" && f.key == "aliases":
				text = strings.Replace(shortest, "aliases: {me: old@gmail.com}", line, 1)
			case sec.name == "domain" && f.key == "same_as":
				text = strings.Replace(shortest, "}}}", "}}, x.example: {"+line+"}}", 1)
			case sec.name == "domain":
				text = strings.Replace(shortest, "aliases:", line+", aliases:", 1)
			case sec.name == "alias" && (f.key == "reject" || f.key == "discard" || f.key == "to"):
				text = strings.Replace(shortest, "old@gmail.com}}}", "{"+line+"}}}}", 1)
			case sec.name == "alias":
				text = strings.Replace(shortest, "old@gmail.com}}}", "{to: a@gmail.com, "+line+"}}}}", 1)
			case sec.name == "acme" && strings.HasPrefix(f.key, "dns_"):
				continue // needs the other one, and a file
			case sec.name == "acme":
				text += "tls: {acme: {" + line + "}}\n"
			case f.key == "relay_from":
				text += "delivery: {relay: \"smtps://u@relay.example.net\", " + line + "}\n"
			case sec.name != "":
				text += sec.name + ": {" + line + "}\n"
			case strings.Contains(shortest, "\n"+f.key+":") || strings.HasPrefix(shortest, f.key+":"):
				text = regexp.MustCompile("(?m)^"+f.key+":.*$").ReplaceAllLiteralString(shortest, line)
			default:
				text += line + "\n"
			}
			if _, problems := load(write(t, "onward.yaml", text)); len(problems) > 0 {
				t.Errorf("%s\n%v", text, problems)
			}
		}
	}
}

// TestSchema asks an independent validator about the same files as TestGolden:
// what Load takes must be valid, and of what it refuses, everything that one
// value alone shows.
func TestSchema(t *testing.T) {
	if err := exec.Command("python3", "-c", "import jsonschema").Run(); err != nil {
		if os.Getenv("ONWARD_REQUIRE_PEERS") != "" {
			t.Fatal("python3-jsonschema is not installed")
		}
		t.Skip("python3-jsonschema is not installed")
	}
	// Files whose only faults are beyond a schema: relations of values, other
	// files, the notation of a key, syntax below the level of JSON.
	beyond := regexp.MustCompile(`^(anchor|merge-key|tag|alias-bomb|bom-and-crlf|control-character|line-separator|too-deep|utf16|` +
		`hostname-.*|domain-bad|acme-.*|policy-lists|relay-keep|relay-bad|relay-forward|relay-password|duplicate-.*|include-.*|same-as|secret-missing|srs-max-age.*|source-.*|srs-domain|tls-.*|two-documents|` +
		`resolvers|sizes-3|key-is-a-list|times-[2-6]|times)$`)
	files, err := filepath.Glob("../../testdata/config/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string]any{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc yaml.Node
		if name := filepath.Base(file); !beyond.MatchString(strings.TrimSuffix(name, ".yaml")) && yaml.Load(data, &doc) == nil {
			documents[file] = plainJSON(&doc)
		}
	}
	input, err := json.Marshal(map[string]any{"schema": json.RawMessage(Schema()), "documents": documents})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "-W", "ignore", "-c", validate)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var faults map[string]string
	if err := json.Unmarshal(out, &faults); err != nil || len(faults) != len(documents) || len(faults) < 20 {
		t.Fatalf("%d answers to %d documents, %v", len(faults), len(documents), err)
	}
	for file, fault := range faults {
		if cfg, problems := load(file); (fault == "") != (cfg != nil) {
			t.Errorf("%s: the schema says %q, Load says %v", file, fault, problems)
		}
	}
}

// validate answers each document with its first fault, or "".
const validate = `
import json, sys, jsonschema
given = json.load(sys.stdin)
jsonschema.Draft202012Validator.check_schema(given["schema"])
v = jsonschema.Draft202012Validator(given["schema"])
json.dump({name: next((e.message for e in v.iter_errors(d)), "") for name, d in given["documents"].items()}, sys.stdout)
`

// plainJSON is the document as an editor's YAML 1.2 reader sees it.
func plainJSON(n *yaml.Node) any {
	switch {
	case n.Kind == yaml.DocumentNode:
		return plainJSON(n.Content[0])
	case n.Kind == yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plainJSON(n.Content[i+1])
		}
		return m
	case n.Kind == yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, plainJSON(item))
		}
		return list
	case n.Tag == "!!null":
		return nil
	case n.Tag == "!!bool":
		return n.Value == "true"
	case n.Tag == "!!int" || n.Tag == "!!float":
		var v any
		if n.Decode(&v) == nil {
			return v
		}
	}
	return n.Value
}
