package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"onward/internal/message"
)

// readMessage reads a message from a file, or from standard input for "-", as
// it would have come by SMTP. The notes tell what had to be changed for that.
func readMessage(path string, stdin io.Reader, limit int64) (_ *message.Message, notes []string, err error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("%s is no file, and no id of a message, of which 8 characters are needed", path)
		}
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		in = f
	}
	b := message.NewBuffer("")
	if notes, err = fill(b, in, limit); err != nil {
		b.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	msg, err := b.Message()
	if err != nil {
		b.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return msg, notes, nil
}

// fill copies a message into b with every line end as CRLF.
func fill(b *message.Buffer, in io.Reader, limit int64) (notes []string, err error) {
	r := bufio.NewReader(in)
	if start, _ := r.Peek(6); strings.HasPrefix(string(start), "From ") && string(start) != "From :" { // the separator of an mbox file
		if err := skipLine(r); err != nil {
			return nil, err
		}
		notes = append(notes, `The first line ("From ...") is no part of the message and was left out.`)
	}
	bare, err := copyLines(b, r, limit)
	if bare > 0 {
		notes = append(notes, fmt.Sprintf("%s ended in LF alone and got the CR LF that mail has on the wire.", count(bare, "line")))
	}
	if err == nil && b.Size() == 0 {
		err = errors.New("there is no message in it")
	}
	return notes, err
}

func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// copyLines copies r, and puts a CR before every LF that has none. It returns
// how many there were.
func copyLines(b *message.Buffer, r *bufio.Reader, limit int64) (bare int, err error) {
	var last byte
	for {
		part, err := r.ReadSlice('\n')
		if n := len(part); n > 0 && part[n-1] == '\n' {
			before := last
			if n > 1 {
				before = part[n-2]
			}
			if before != '\r' {
				bare++
				part = append(bytes.Clone(part[:n-1]), "\r\n"...)
			}
		}
		if limit > 0 && b.Size()+int64(len(part)) > limit {
			return bare, fmt.Errorf("larger than the %d octets that this server takes (limits.message)", limit)
		}
		if len(part) > 0 {
			last = part[len(part)-1]
		}
		if _, trouble := b.Write(part); trouble != nil {
			return bare, trouble
		}
		if err == io.EOF {
			return bare, nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return bare, err
		}
	}
}
