package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"onward/internal/dialguard"
	"onward/internal/dnsbl"
)

// blocklists looks one of our addresses up in them. What is wrong with a list
// itself is worth a warning: we would not know that we are on it.
func (e *examination) blocklists(ctx context.Context, ip netip.Addr) []Check {
	if len(e.Lists) == 0 {
		return nil
	}
	check := "lists " + ip.String()
	var troubles notes
	checker := &dnsbl.Checker{Resolver: e.Resolver, Block: e.Lists, Timeout: lineTime, Log: slog.New(&troubles)}
	found := checker.Check(ctx, ip)
	if len(found.Listed) > 0 {
		first := found.Listed[0]
		return []Check{{check, Failure, fmt.Sprintf("%s is listed by %s (%s): %s", ip, first.List, first.Code, quote(orNoReason(first.Reason))), removal[first.List]}}
	}
	if texts := troubles.all(); len(texts) > 0 {
		return []Check{{check, Warning, fmt.Sprintf("%s is on no blocklist that answers; %s.", ip, quote(texts[0])), ""}}
	}
	return []Check{{check, OK, fmt.Sprintf("%s is on none of %s.", ip, blocklistCount(len(e.Lists))), ""}}
}

// CommonLists are blocklists that many mail servers ask and that anybody may.
var CommonLists = []string{"zen.spamhaus.org", "bl.spamcop.net", "b.barracudacentral.org", "psbl.surriel.com", "bl.mailspike.net"}

// removal is where to ask them to be taken off.
var removal = map[string]string{
	"zen.spamhaus.org":       "https://check.spamhaus.org",
	"bl.spamcop.net":         "https://www.spamcop.net/bl.shtml",
	"b.barracudacentral.org": "https://www.barracudacentral.org/rbl/removal-request",
	"psbl.surriel.com":       "https://psbl.org/remove",
	"bl.mailspike.net":       "https://mailspike.io/ip_verify",
}

func blocklistCount(n int) string {
	if n == 1 {
		return "1 blocklist"
	}
	return fmt.Sprintf("%d blocklists", n)
}

func orNoReason(s string) string {
	if s == "" {
		return "it gives no reason."
	}
	return s
}

// notes is a log handler that keeps what dnsbl says of lists that are of no use.
type notes struct {
	mu    sync.Mutex
	texts []string
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.texts
}

// Enabled, Handle, WithAttrs and WithGroup implement slog.Handler.
func (n *notes) Enabled(context.Context, slog.Level) bool { return true }
func (n *notes) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n *notes) WithGroup(string) slog.Handler            { return n }
func (n *notes) Handle(_ context.Context, r slog.Record) error {
	text := ""
	r.Attrs(func(a slog.Attr) bool {
		if text != "" {
			text += ": "
		}
		text += a.Value.String()
		return true
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.texts = append(n.texts, text)
	return nil
}

// clients looks at who has sent us mail: where all of them are at private
// addresses, a proxy or a container's network hides the real ones, and SPF and
// limits are blind (DESIGN.md 9.11). Mail of this machine does not count.
func (e *examination) clients(context.Context) []Check {
	const check = "clients"
	const some = 3 // by then it is no coincidence
	hidden := 0
	var example netip.Addr
	for _, ip := range e.Clients {
		switch {
		case ip.IsLoopback():
		case dialguard.Public(ip):
			return []Check{{check, OK, "Clients are seen with their own addresses.", ""}}
		default:
			hidden, example = hidden+1, ip
		}
	}
	switch {
	case hidden == 0 && InContainer():
		return []Check{{check, OK, "Whether this container sees the addresses of clients shows with the first mail.", ""}}
	case hidden == 0:
		return []Check{{check, OK, "No mail has come lately that would show how clients are seen.", ""}}
	case hidden < some:
		return []Check{{check, Warning, fmt.Sprintf("The few clients so far were at private addresses such as %s.", example), "network_mode: host"}}
	}
	return []Check{{check, Failure, fmt.Sprintf("All clients seem to be at private addresses such as %s: a proxy or a container's network hides them, so SPF and limits are blind (for a proxy see policy.proxy_protocol_from).", example), "network_mode: host"}}
}

// InContainer reports whether we run in one.
func InContainer() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}

// clock says what can be known of it without asking anybody: it cannot be
// before this program was built, nor before a file was written, and the kernel
// knows whether somebody sets it.
func (e *examination) clock(context.Context) []Check {
	const check = "clock"
	const mend = "timedatectl set-ntp true"
	now := e.Now.UTC().Format(time.RFC3339)
	newest := e.newestFile()
	switch {
	case e.Now.Before(e.Built) || e.Now.Year() < 2025:
		return []Check{{check, Failure, fmt.Sprintf("It is %s by the clock, which is before this program was made; signatures, certificates and return paths need the right time.", now), mend}}
	case newest.Sub(e.Now) > 10*time.Minute:
		return []Check{{check, Warning, fmt.Sprintf("It is %s by the clock, but files here are of %s; it was set back, or is wrong now.", now, newest.UTC().Format(time.RFC3339)), mend}}
	case unsynchronised():
		return []Check{{check, OK, fmt.Sprintf("It is %s; nothing here contradicts, but no program keeps the clock right.", now), ""}}
	}
	return []Check{{check, OK, fmt.Sprintf("It is %s; nothing here contradicts.", now), ""}}
}

// newestFile is when the last of the files of configuration and state was
// written.
func (e *examination) newestFile() time.Time {
	var newest time.Time
	paths := append([]string{}, e.Config.Files...)
	for _, name := range []string{"journal.db", "onward.db", "lock"} {
		paths = append(paths, filepath.Join(e.Config.StateDir, name))
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest
}

// disk holds what is free against what the queue leaves free (RELIABILITY.md 5).
func (e *examination) disk(context.Context) []Check {
	const check = "disk"
	dir := e.Config.StateDir
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return nil // which the check of the state directory says
	}
	free := int64(disk.Bavail) * int64(disk.Bsize)
	limits := e.Config.Limits
	floor := max(limits.FreeSpace, int64(disk.Blocks)/100*int64(disk.Bsize)*int64(limits.FreePercent))
	switch {
	case free < floor:
		return []Check{{check, Failure, fmt.Sprintf("%s of the disk of %s is free, and the queue takes nothing below %s.", size(free), dir, size(floor)), "du -xh " + dir + " | sort -h | tail"}}
	case disk.Files > 0 && disk.Ffree < disk.Files/100*uint64(limits.FreePercent):
		return []Check{{check, Failure, fmt.Sprintf("The disk of %s has hardly any inode left, so the queue takes nothing.", dir), "df -i " + dir}}
	}
	return []Check{{check, OK, fmt.Sprintf("%s free for %s.", size(free), dir), ""}}
}

func size(octets int64) string {
	if octets < 1<<30 {
		return fmt.Sprintf("%d MiB", octets>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(octets)/(1<<30))
}

// private checks that nobody else can read keys, secrets and mail, and that all
// of it belongs to one user.
func (e *examination) private(context.Context) []Check {
	const check = "state"
	dir := e.Config.StateDir
	top, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Check{{check, Failure, fmt.Sprintf("There is no state directory %s yet; init and serve make it.", dir), "install -d -m 700 " + dir}}
	case err != nil:
		return []Check{{check, Warning, fmt.Sprintf("The state directory cannot be looked at (%s); run this as the user that onward runs as, or as root.", quote(err.Error())), ""}}
	}
	if top.Mode().Perm()&0o077 != 0 {
		return []Check{{check, Failure, fmt.Sprintf("%s, with keys and mail in it, is open to other users (mode %04o).", dir, top.Mode().Perm()), "chmod 700 " + dir}}
	}
	if found := e.exposed(dir, owner(top)); found != nil {
		return []Check{*found}
	}
	for _, file := range []string{e.Config.SRS.SecretFile, e.Config.Delivery.RelayPasswordFile, e.Config.TLS.Key} {
		if info, err := os.Stat(file); file != "" && err == nil && info.Mode().Perm()&0o007 != 0 {
			return []Check{{check, Failure, fmt.Sprintf("%s is open to all users (mode %04o).", file, info.Mode().Perm()), "chmod 600 " + file}}
		}
	}
	return []Check{{check, OK, fmt.Sprintf("%s is private.", dir), ""}}
}

// exposed returns the first file below dir that others may read, or that belongs
// to somebody else than dir does.
func (e *examination) exposed(dir string, user uint32) *Check {
	const most = 10_000 // entries that are looked at
	seen := 0
	var found *Check
	filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if seen++; seen > most {
			return fs.SkipAll
		}
		if err != nil {
			return nil // it went away, or is private to somebody else, which its directory shows
		}
		info, err := entry.Info()
		if err != nil || entry.IsDir() && path == dir {
			return nil
		}
		switch {
		case info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0:
			found = &Check{"state", Failure, fmt.Sprintf("%s is open to other users (mode %04o).", quote(path), info.Mode().Perm()), "chmod 600 " + path}
		case owner(info) != user:
			found = &Check{"state", Failure, fmt.Sprintf("%s belongs to another user than %s, so onward may not be able to use it.", quote(path), dir), "chown -R --reference=" + dir + " " + dir}
		default:
			return nil
		}
		return fs.SkipAll
	})
	return found
}

func owner(info fs.FileInfo) uint32 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Uid
	}
	return 0
}
