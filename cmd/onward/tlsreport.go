package main

import (
	"bytes"
	"context"
	"time"

	"onward/internal/address"
	"onward/internal/message"
	"onward/internal/store"
	"onward/internal/tlspolicy"
	"onward/internal/tlsrpt"
)

// noteTLS counts how TLS with a mail host went, where that is to be reported.
func (d *daemon) noteTLS(s tlspolicy.Session) {
	if d.current.Load().config.Reports.TLS {
		d.state.tlsReports.Note(s)
	}
}

// tlsReports says how the reports of the day before are sent, if they are.
func (d *daemon) tlsReports() tlsrpt.Settings {
	now := d.current.Load()
	s := tlsrpt.Settings{
		Resolver:  now.resolver,
		Web:       web(now.config, now.resolver),
		Submitter: now.config.Hostname,
		From:      address.Mailbox{Local: "postmaster", Domain: now.config.Hostname},
	}
	if now.config.Reports.TLS {
		s.Send = d.sendTLSReport
	}
	return s
}

// sendTLSReport signs a report and puts it into the queue.
func (d *daemon) sendTLSReport(ctx context.Context, mail *tlsrpt.Mail) error {
	buffer := message.NewBuffer(d.state.tempDir())
	defer buffer.Close()
	buffer.Write(mail.Header)
	if _, err := buffer.Write(mail.Rest); err != nil {
		return err
	}
	msg, err := buffer.Message()
	if err != nil {
		return err
	}
	signature, err := d.current.Load().queueRoute().Sign(msg)
	if err != nil {
		return err
	}
	header := append(signature, mail.Header...)
	now := time.Now()
	return d.queue.Add(ctx, bytes.NewReader(mail.Rest), []*store.Item{{
		Message: message.NewID(now), Kind: store.TLSReport, Recipient: mail.From, Target: mail.To,
		Header: header, Size: int64(len(header) + len(mail.Rest)), Arrived: now,
	}})
}
