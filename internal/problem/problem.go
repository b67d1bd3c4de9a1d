// Package problem is one thing wrong in the configuration, with the place it
// stands, so that every problem can be shown at once and each can be found.
package problem

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Position is a place in a configuration file. Line and Column count from 1;
// zero means the whole file. Column counts characters.
type Position struct {
	File   string
	Line   int
	Column int
}

// String returns "file:line:column", without the parts that are zero.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
}

// A Problem is one sentence about one place.
type Problem struct {
	Position
	Text    string // what is wrong and what to do, one sentence
	Source  string // the offending line as it stands in the file, or empty
	Warning bool   // worth saying, but no reason to refuse the file
}

// String returns "file:line:column: text" on one line.
func (p Problem) String() string { return p.Position.String() + ": " + p.Text }

// A List is the problems of one reading. As an error it prints them all.
type List []Problem

// Error returns one problem a line.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, p := range l {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sort orders the list by file, line and column.
func (l List) Sort() {
	slices.SortStableFunc(l, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// Fatal returns the problems that are not mere warnings.
func (l List) Fatal() List {
	return slices.DeleteFunc(slices.Clone(l), func(p Problem) bool { return p.Warning })
}
