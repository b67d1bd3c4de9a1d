package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A disk is a directory in which everything that SQLite does to files is
// recorded, in order, and can be made to fail. It stands between SQLite and its
// unix VFS, which does the work; so what the store and its driver really do is
// recorded, down to the last sync.
type disk struct {
	dir string

	mu   sync.Mutex
	ops  []op
	fail func(op) int32 // may be nil; an SQLite error code, or 0
}

// An op is one change of a file, or a sync.
type op struct {
	number int
	kind   opKind
	file   string // within the directory
	offset int64  // of a write; the size of a truncate
	data   []byte // of a write
	dir    bool   // the directory was synced afterwards
}

type opKind int

const (
	opCreate opKind = iota
	opWrite
	opTruncate
	opSync
	opDelete
)

// newDisk records what is done in dir from now on.
func newDisk(dir string) *disk {
	patch()
	d := &disk{dir: dir}
	shim.mu.Lock()
	defer shim.mu.Unlock()
	shim.disks[dir] = d
	return d
}

// do records an operation and passes it on, unless it is to fail.
func (d *disk) do(o op, pass func() int32) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		if code := d.fail(o); code != 0 {
			return code
		}
	}
	code := pass()
	if code == 0 {
		o.number = len(d.ops)
		d.ops = append(d.ops, o)
	}
	return code
}

// now is how many operations there were so far.
func (d *disk) now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ops)
}

// failing makes operations fail from now on, until it is called with nil.
func (d *disk) failing(fail func(op) int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

// A cut chooses which of the operations on a file that were not synced have
// reached the disk all the same when the power went.
type cut struct {
	name string
	keep func(i, n int) bool // of n
	torn bool                // of the last one kept, half
}

var cuts = []cut{
	{"nothing", func(i, n int) bool { return false }, false},
	{"all", func(i, n int) bool { return true }, false},
	{"the first half", func(i, n int) bool { return i < n/2 }, false},
	{"the second half", func(i, n int) bool { return i >= n/2 }, false},
	{"every other one", func(i, n int) bool { return i%2 == 1 }, false},
	{"all, the last torn", func(i, n int) bool { return true }, true},
}

// A moment is what is on a disk after some operations: files as they were
// synced, and the operations on each since then.
type moment struct {
	files    map[string][]byte
	unsynced map[string][]op
	version  map[string]int // when a file was synced last
}

// moments calls yield after 0, 1, 2, ... of the operations there were so far. A
// checkpoint may still be at work.
func (d *disk) moments(yield func(k int, m *moment)) {
	d.mu.Lock()
	ops := slices.Clone(d.ops)
	d.mu.Unlock()
	m := &moment{
		files:    map[string][]byte{"onward.db": {}}, // made, with a sync of the directory, before SQLite sees it
		unsynced: map[string][]op{},
		version:  map[string]int{},
	}
	yield(0, m)
	for i, o := range ops {
		m.add(o, i+1)
		yield(i+1, m)
	}
}

// add takes one more operation. When the directory is synced, too, the names in
// it last, but not what is in the files.
func (m *moment) add(o op, k int) {
	m.unsynced[o.file] = append(m.unsynced[o.file], o)
	if o.kind == opSync {
		for _, o := range m.unsynced[o.file] {
			apply(m.files, o, false)
		}
		m.unsynced[o.file], m.version[o.file] = nil, k
	}
	if !o.dir {
		return
	}
	for file, pending := range m.unsynced {
		for i, o := range pending {
			if o.kind == opCreate || o.kind == opDelete {
				apply(m.files, o, false)
				m.unsynced[file], m.version[file] = pending[i+1:], k
			}
		}
	}
}

// A remains is what a power cut leaves: of the unsynced operations on each file,
// those of its cut.
type remains map[string]cut

// remains returns every combination of cuts of a moment.
func (m *moment) remains() []remains {
	all := []remains{{}}
	for file, pending := range m.unsynced {
		if len(pending) == 0 {
			continue
		}
		var more []remains
		for _, r := range all {
			for _, c := range cuts {
				one := maps.Clone(r)
				one[file] = c
				more = append(more, one)
			}
		}
		all = more
	}
	return all
}

// each calls do with the operations that are kept.
func (r remains) each(m *moment, do func(o op, torn bool)) {
	for _, file := range slices.Sorted(maps.Keys(r)) {
		c, n := r[file], len(m.unsynced[file])
		for i, o := range m.unsynced[file] {
			if c.keep(i, n) {
				do(o, c.torn && i == n-1)
			}
		}
	}
}

// key is the same for remains that are the same files.
func (r remains) key(m *moment) string {
	var b strings.Builder
	for _, file := range slices.Sorted(maps.Keys(m.version)) {
		fmt.Fprint(&b, file, m.version[file], " ")
	}
	r.each(m, func(o op, torn bool) { fmt.Fprint(&b, o.number, torn, " ") })
	return b.String()
}

// files makes the files.
func (r remains) files(m *moment) map[string][]byte {
	files := maps.Clone(m.files)
	for file := range r {
		if content, there := files[file]; there {
			files[file] = slices.Clone(content)
		}
	}
	r.each(m, func(o op, torn bool) { apply(files, o, torn) })
	return files
}

func (r remains) String() string {
	var b strings.Builder
	for file, c := range r {
		fmt.Fprintf(&b, "%s: %s; ", file, c.name)
	}
	return b.String()
}

// apply changes files as an operation does; half of it, when it is torn. Without
// its name, a file is nothing.
func apply(files map[string][]byte, o op, torn bool) {
	content, there := files[o.file]
	switch {
	case o.kind == opCreate:
		files[o.file] = []byte{}
	case o.kind == opDelete:
		delete(files, o.file)
	case o.kind == opTruncate && there:
		files[o.file] = grow(content, int(o.offset))[:o.offset]
	case o.kind == opWrite && there:
		data := o.data
		if torn {
			data = data[:len(data)/2]
		}
		content = grow(content, int(o.offset)+len(data))
		copy(content[o.offset:], data)
		files[o.file] = content
	}
}

// grow makes a file at least so long.
func grow(content []byte, size int) []byte {
	if size <= len(content) {
		return content
	}
	return append(content, make([]byte, size-len(content))...)
}

// shim is what stands between SQLite and its VFS.
var shim = struct {
	mu      sync.Mutex
	patched bool
	vfs     sqlite3.Tsqlite3_vfs // as it was
	disks   map[string]*disk
	files   map[uintptr]*openFile
	methods map[uintptr]uintptr // ours, by those in the place of which they stand
}{disks: map[string]*disk{}, files: map[uintptr]*openFile{}, methods: map[uintptr]uintptr{}}

type openFile struct {
	disk    *disk
	name    string
	newName bool                        // SQLite syncs the directory with the next sync of the file
	methods sqlite3.Tsqlite3_io_methods // as they were
}

// patch puts our xOpen and xDelete in the place of those of the default VFS.
func patch() {
	shim.mu.Lock()
	defer shim.mu.Unlock()
	if shim.patched {
		return
	}
	shim.patched = true
	tls := libc.NewTLS()
	defer tls.Close()
	vfs := at[sqlite3.Tsqlite3_vfs](sqlite3.Xsqlite3_vfs_find(tls, 0))
	shim.vfs = *vfs
	vfs.FxOpen = pointer(xOpen)
	vfs.FxDelete = pointer(xDelete)
}

// at is the C structure at an address.
func at[T any](address uintptr) *T { return *(**T)(unsafe.Pointer(&address)) }

// pointer is a function as C code of the driver sees it, and function is back.
func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

type (
	openFunc     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	deleteFunc   = func(tls *libc.TLS, vfs, name uintptr, sync int32) int32
	writeFunc    = func(tls *libc.TLS, file, data uintptr, n int32, offset int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size int64) int32
	syncFunc     = func(tls *libc.TLS, file uintptr, flags int32) int32
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
)

// lookUp returns the disk and the name there of a path, or nil.
func lookUp(path uintptr) (*disk, string) {
	if path == 0 {
		return nil, ""
	}
	dir, name := filepath.Split(libc.GoString(path))
	shim.mu.Lock()
	defer shim.mu.Unlock()
	return shim.disks[filepath.Clean(dir)], name
}

func xOpen(tls *libc.TLS, vfs, path, file uintptr, flags int32, out uintptr) int32 {
	open := function[openFunc](shim.vfs.FxOpen)
	d, name := lookUp(path)
	if d == nil {
		return open(tls, vfs, path, file, flags, out)
	}
	pass := func() int32 { return open(tls, vfs, path, file, flags, out) }
	_, err := os.Stat(libc.GoString(path))
	var code int32
	if errors.Is(err, fs.ErrNotExist) {
		code = d.do(op{kind: opCreate, file: name}, pass)
	} else {
		code = pass()
	}
	if code != 0 {
		return code
	}
	shim.mu.Lock()
	defer shim.mu.Unlock()
	original := &at[sqlite3.Tsqlite3_file](file).FpMethods
	f := &openFile{disk: d, name: name, methods: *at[sqlite3.Tsqlite3_io_methods](*original)}
	f.newName = flags&sqlite3.SQLITE_OPEN_CREATE != 0 && flags&(sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_JOURNAL) != 0
	shim.files[file] = f
	ours := shim.methods[*original]
	if ours == 0 {
		ours = libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(f.methods))) // where C code may do sums with it
		methods := at[sqlite3.Tsqlite3_io_methods](ours)
		*methods = f.methods
		methods.FxClose, methods.FxWrite = pointer(xClose), pointer(xWrite)
		methods.FxTruncate, methods.FxSync = pointer(xTruncate), pointer(xSync)
		shim.methods[*original] = ours
	}
	*original = ours
	return 0
}

func opened(file uintptr) *openFile {
	shim.mu.Lock()
	defer shim.mu.Unlock()
	return shim.files[file]
}

func xClose(tls *libc.TLS, file uintptr) int32 {
	f := opened(file)
	shim.mu.Lock()
	delete(shim.files, file)
	shim.mu.Unlock()
	return function[closeFunc](f.methods.FxClose)(tls, file)
}

func xWrite(tls *libc.TLS, file, data uintptr, n int32, offset int64) int32 {
	f := opened(file)
	o := op{kind: opWrite, file: f.name, offset: offset, data: bytes.Clone(unsafe.Slice(at[byte](data), n))}
	return f.disk.do(o, func() int32 { return function[writeFunc](f.methods.FxWrite)(tls, file, data, n, offset) })
}

func xTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	f := opened(file)
	return f.disk.do(op{kind: opTruncate, file: f.name, offset: size}, func() int32 {
		return function[truncateFunc](f.methods.FxTruncate)(tls, file, size)
	})
}

func xSync(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := opened(file)
	o := op{kind: opSync, file: f.name, dir: f.newName}
	f.newName = false
	return f.disk.do(o, func() int32 { return function[syncFunc](f.methods.FxSync)(tls, file, flags) })
}

func xDelete(tls *libc.TLS, vfs, path uintptr, sync int32) int32 {
	remove := function[deleteFunc](shim.vfs.FxDelete)
	d, name := lookUp(path)
	if d == nil {
		return remove(tls, vfs, path, sync)
	}
	return d.do(op{kind: opDelete, file: name, dir: sync != 0}, func() int32 { return remove(tls, vfs, path, sync) })
}
