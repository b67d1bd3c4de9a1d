package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// An asker asks the person at the terminal, a line each. Where nobody is there,
// or wants to be asked, the defaults are taken.
type asker struct {
	there bool
	in    *bufio.Reader
	out   io.Writer
}

func newAsker(cmd *cobra.Command, silent bool) *asker {
	in := cmd.InOrStdin()
	f, ok := in.(*os.File)
	return &asker{
		there: ok && term.IsTerminal(int(f.Fd())) && !silent,
		in:    bufio.NewReader(in),
		out:   cmd.ErrOrStderr(),
	}
}

// ask asks until the answer is good. An empty answer is the standard one. option
// names what would have answered on the command line; with neither a standard nor
// an option, the empty answer is good too.
func (a *asker) ask(question, standard, option string, check func(string) error) (string, error) {
	if !a.there {
		if standard == "" && option != "" {
			return "", misuse{fmt.Errorf("%s is missing", option)}
		}
		if err := check(standard); err != nil {
			return "", misuse{fmt.Errorf("%s: %w", option, err)}
		}
		return standard, nil
	}
	for {
		fmt.Fprint(a.out, question)
		if standard != "" {
			fmt.Fprintf(a.out, " [%s]", standard)
		}
		fmt.Fprint(a.out, ": ")
		answer, err := a.line()
		if err != nil {
			return "", err
		}
		if answer == "" {
			answer = standard
		}
		if answer == "" && option != "" {
			continue
		}
		err = check(answer)
		if err == nil {
			return answer, nil
		}
		fmt.Fprintf(a.out, "  %s\n", visible(err.Error()))
	}
}

func (a *asker) line() (string, error) {
	text, err := a.in.ReadString('\n')
	if err != nil {
		fmt.Fprintln(a.out)
		return "", errors.New("nothing was written: the questions were not answered to the end")
	}
	return strings.TrimSpace(text), nil
}

// aliases asks for the aliases of a domain that has none yet, until there is one
// and no other is wanted.
func (a *asker) aliases(d *newDomain) error {
	if len(d.aliases) > 0 {
		return nil
	}
	if !a.there {
		return misuse{errors.New("ALIAS=TARGET is missing, such as me=you@gmail.com")}
	}
	fmt.Fprintf(a.out, "Aliases of %s, one a line, such as me=you@gmail.com; *=you@gmail.com\nfor all the rest. An empty line ends them.\n", d.name)
	for {
		fmt.Fprint(a.out, "Alias: ")
		text, err := a.line()
		switch {
		case err != nil:
			return err
		case text == "" && len(d.aliases) > 0:
			return nil
		case text == "":
		default:
			if err := d.parse(text); err != nil {
				fmt.Fprintf(a.out, "  %s\n", visible(err.Error()))
			}
		}
	}
}
