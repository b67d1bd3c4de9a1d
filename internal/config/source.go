package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"onward/internal/problem"
)

// Bounds on what is read before anything is known about it.
const (
	maxBytes    = 32 << 20 // all files together; 100,000 aliases take 3 to 5 MiB
	maxDepth    = 24       // the deepest key of the contract is at 6
	maxProblems = 1000     // a thousand are not read to the end by anybody
	maxLine     = 64 << 10 // longer source lines are not shown
)

// A source is one file being read: its text by lines, and where its problems go.
type source struct {
	*loader
	file   string
	text   *File
	lines  []string
	starts []int32 // of the lines, in octets of the text
}

// read returns the bytes of a regular file of at most limit octets.
func read(path string, limit int) (string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", errors.New("there is no such file; create it, or name another")
	case err != nil:
		return "", fmt.Errorf("cannot be read (%w); mend the path or its permissions", cause(err))
	case info.IsDir():
		return "", errors.New("this is a directory; name a file in it")
	case !info.Mode().IsRegular():
		return "", errors.New("this is not a regular file; name one")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot be read (%w); mend its permissions", cause(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot be read (%w); look at the disk", cause(err))
	case len(data) > limit:
		return "", fmt.Errorf("is too large: all files together may have %d MiB", maxBytes>>20)
	}
	return string(data), nil
}

// cause strips the path, which the problem names already.
func cause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// parse turns the text of a file into its one mapping, or reports why not.
func (s *source) parse(text string) *yaml.Node {
	text = strings.TrimPrefix(text, "\ufeff")
	s.text, s.lines = &File{Path: s.file, Text: text}, strings.Split(text, "\n")
	start := int32(0)
	for _, line := range s.lines {
		s.starts = append(s.starts, start)
		start += int32(len(line)) + 1
	}
	if !s.checkText() {
		return nil
	}
	loader, err := yaml.NewLoader(strings.NewReader(text), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		s.add(0, 0, err.Error())
		return nil
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		s.add(0, 0, "the file is empty; docs/configuration.md shows the shortest useful one")
		return nil
	case err != nil:
		s.syntax(err)
		return nil
	}
	switch err := loader.Load(&second); {
	case err == nil:
		s.add(second.Line, second.Column, "a second YAML document begins here; keep everything in one and remove the ---")
		return nil
	case !errors.Is(err, io.EOF):
		s.syntax(err)
		return nil
	}
	if !s.plain(&doc) {
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		s.add(1, 0, "the file must hold keys and values, such as \"hostname: mx.example.org\"")
		return nil
	}
	return doc.Content[0]
}

// checkText refuses what YAML would refuse without saying where, and the line
// ends of YAML 1.1 that no editor counts, so that our line numbers are theirs.
func (s *source) checkText() bool {
	for i, line := range s.lines {
		column := 0
		for at, r := range strings.TrimSuffix(line, "\r") {
			column++
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(line[at:], "\ufffd"):
				s.add(i+1, column, "this is not valid UTF-8; save the file as UTF-8")
				return false
			case r < ' ' && r != '\t', 0x7f <= r && r < 0xa0, r == '\u2028', r == '\u2029', r == '\ufeff', r == '\ufffe', r == '\uffff':
				s.add(i+1, column, fmt.Sprintf("the control character %U does not belong in a configuration; remove it", r))
				return false
			}
		}
	}
	return true
}

// hints say what to do about the messages of the YAML library that people meet.
var hints = []struct{ message, hint string }{
	{"mapping values are not allowed", `there is a ":" too many or the indentation is off; quote a value that has ": " in it`},
	{"did not find expected key", "the indentation does not fit the lines above; line it up with the other keys"},
	{"did not find expected alphabetic", `a key or value that begins with * or & must be quoted, such as "*"`},
	{"unknown anchor", `a key or value that begins with * must be quoted, such as "*"`},
	{"did not find expected ',' or ']'", "a list is not closed, or a text in it needs quotes; add the ] or the quotes"},
	{"did not find expected ',' or '}'", "a mapping is not closed, or a text in it needs quotes; add the } or the quotes"},
	{"did not find expected node content", "a value is missing, or a bracket is one too many"},
	{"found unexpected end of stream", "a quoted text is not closed; add the quote"},
	{"could not find expected ':'", `a ":" is missing after the key`},
	{"unknown escape character", "a backslash in double quotes begins an escape; use single quotes around text with backslashes"},
	{"exceeded max depth", "lists and mappings are nested too deep; no key of onward needs that"},
}

// syntax reports an error of the YAML library, in words of ours where we have them.
func (s *source) syntax(err error) {
	e, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		s.add(0, 0, "not valid YAML: "+err.Error())
		return
	}
	line, column := e.Mark.Line, e.Mark.Column
	bracket := strings.Contains(e.ContextMsg, "flow") || strings.Contains(e.ContextMsg, "quoted")
	if bracket && e.ContextMark.Line < line {
		line, column = e.ContextMark.Line, e.ContextMark.Column // where it opens, not where the file ends
	}
	if line > len(s.lines) {
		line, column = len(s.lines), 0 // the library counts a line that is not there
	}
	if o, ok := s.unclosed(line, column); ok && !bracket {
		s.add(o.line, o.column, "not valid YAML: "+opened[o.sign])
		return
	}
	if above := s.line(line - 1); strings.Contains(e.Message, "mapping values") && strings.TrimSpace(above) != "" && !strings.ContainsAny(above, ":#-") {
		s.add(line-1, 0, "not valid YAML: a \":\" is missing after the key")
		return
	}
	s.add(line, column, "not valid YAML: "+s.hint(e.Message, line, column))
}

// An opening is a bracket or a quote, and where it stands.
type opening struct {
	sign         rune
	line, column int
}

// opened says what to do about an opening that nothing closes.
var opened = map[rune]string{
	'[':  "a list is not closed; add the ]",
	'{':  "a mapping is not closed; add the }",
	'"':  "a quoted text is not closed; add the quote",
	'\'': "a quoted text is not closed; add the quote",
}

// unclosed looks for what was opened on an earlier line than the one where the
// library noticed that something is wrong: YAML goes on reading a list or a text
// over the lines below, so that a missing bracket shows far from its place. A
// quote that is closed on that very line was closed by the next text's quote.
func (s *source) unclosed(line, column int) (opening, bool) {
	var open []opening
	var quote opening
	for i, text := range s.lines[:line] {
		before := ' '
		for j, r := range []rune(text) {
			if quote.sign == 0 && r == '#' && before == ' ' {
				break // a comment
			}
			at := opening{r, i + 1, j + 1}
			begins := strings.ContainsRune(" [{,", before)
			switch {
			case quote.sign != 0 && r == quote.sign && before != '\\':
				if quote.line < line && i+1 == line {
					return quote, true
				}
				quote = opening{}
			case quote.sign != 0:
			case i+1 == line && j+1 >= column:
			case (r == '"' || r == '\'') && begins:
				quote = at
			case (r == '[' || r == '{') && begins:
				open = append(open, at)
			case (r == ']' || r == '}') && len(open) > 0:
				open = open[:len(open)-1]
			}
			before = r
		}
	}
	if len(open) > 0 && open[0].line < line {
		return open[0], true
	}
	return opening{}, false
}

// hint returns what to do about a message of the YAML library.
func (s *source) hint(message string, line, column int) string {
	if strings.Contains(message, "cannot start any token") {
		rest := []rune(s.line(line))
		if column-1 < len(rest) && rest[column-1] == '\t' {
			return "a tab cannot indent; use spaces"
		}
		return "a value cannot begin with this character; put the value in quotes"
	}
	for _, h := range hints {
		if strings.Contains(message, h.message) {
			return h.hint
		}
	}
	return message
}

// plain refuses the parts of YAML that make a file say something else than it
// shows: anchors and references (and with them alias bombs), merge keys, tags.
func (s *source) plain(n *yaml.Node) bool {
	text := ""
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		text = `anchors (&name) and references (*name) are not supported; write the value out, or quote a text that begins with * or &`
	case n.Style&yaml.TaggedStyle != 0:
		text = "tags (!name) are not supported; remove it, or quote a text that begins with !"
	case n.Tag == "!!merge":
		text = "merge keys (<<) are not supported; write the values out"
	}
	if text != "" {
		s.add(n.Line, n.Column, text)
		return false
	}
	ok := true
	for _, child := range n.Content {
		ok = s.plain(child) && ok
	}
	return ok
}

// line returns line n, counted from 1, or "" when there is none to show.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) || len(s.lines[n-1]) > maxLine {
		return ""
	}
	return strings.TrimSuffix(s.lines[n-1], "\r")
}

// add reports a problem at a place of this file.
func (s *source) add(line, column int, text string) {
	s.report(problem.Problem{Position: problem.Position{File: s.file, Line: line, Column: column}, Text: text, Source: s.line(line)})
}

// at reports a problem at a node.
func (s *source) at(n *yaml.Node, format string, args ...any) {
	s.add(n.Line, n.Column, fmt.Sprintf(format, args...))
}

// warn reports something that is no reason to refuse the file.
func (s *source) warn(n *yaml.Node, format string, args ...any) {
	p := problem.Problem{Position: s.position(n), Text: fmt.Sprintf(format, args...), Source: s.line(n.Line), Warning: true}
	s.report(p)
}

// report keeps the first maxProblems, and of what follows only that there is
// something wrong, so that no error hides behind a thousand warnings.
func (s *source) report(p problem.Problem) {
	switch n := len(s.problems); {
	case n < maxProblems:
		s.problems = append(s.problems, p)
	case n == maxProblems && !p.Warning:
		s.problems = append(s.problems, problem.Problem{Position: problem.Position{File: s.file},
			Text: fmt.Sprintf("there are more than %d problems; mend those shown first", maxProblems)})
	}
}

// position is the place of a node.
func (s *source) position(n *yaml.Node) problem.Position {
	return problem.Position{File: s.file, Line: n.Line, Column: n.Column}
}

// pairs walks a mapping in file order, and reports keys that are no text and
// keys that come twice (after fold, which may return the key as it is).
func (s *source) pairs(n *yaml.Node, fold func(string) string, each func(key, value *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for pair := range slices.Chunk(n.Content, 2) {
		key, value := pair[0], pair[1]
		if key.Kind != yaml.ScalarNode {
			s.at(key, "a key must be text, not a list or mapping; quote it if it begins with [ or {")
			continue
		}
		folded := fold(key.Value)
		if line, twice := seen[folded]; twice {
			s.at(key, "%q is already on line %d; remove one of the two", key.Value, line)
			continue
		}
		seen[folded] = key.Line
		each(key, value)
	}
}
