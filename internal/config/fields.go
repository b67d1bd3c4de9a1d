package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// A field is one key of a section, as the struct tags describe it.
type field struct {
	key      string
	doc      string
	example  string
	fallback string // the default, as the file would have it or in words
	is       string
	min, max string
	enum     []string
	index    []int // in the struct, through what is embedded
	typ      reflect.Type
}

// A section is the keys of one mapping of the file.
type section struct {
	name   string // "", "tls", ... "domain", "alias"
	fields []field
	byKey  map[string]*field
}

// sections are all mappings of the file by the struct they are read into.
var sections = describe(map[reflect.Type]*section{}, "", reflect.ValueOf(*defaults()))

// describe adds the section that is read into a struct like standard, which
// holds the defaults, and the sections inside it.
func describe(all map[reflect.Type]*section, name string, standard reflect.Value) map[reflect.Type]*section {
	t := standard.Type()
	sec := &section{name: name, byKey: map[string]*field{}}
	all[t] = sec
	for _, member := range reflect.VisibleFields(t) {
		tag, value := member.Tag, standard.FieldByIndex(member.Index)
		key := tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		f := field{key: key, index: member.Index, typ: member.Type, doc: tag.Get("doc"), example: tag.Get("example"),
			fallback: cmp.Or(tag.Get("default"), notation(value.Interface())), is: tag.Get("is"), min: tag.Get("min"), max: tag.Get("max")}
		if enum := tag.Get("enum"); enum != "" {
			f.enum = strings.Split(enum, ",")
		}
		sec.fields = append(sec.fields, f)
		switch f.typ {
		case reflect.TypeFor[[]*Domain]():
			describe(all, "domain", reflect.ValueOf(Domain{}))
		case reflect.TypeFor[[]*Alias]():
			describe(all, "alias", reflect.ValueOf(Alias{Rule: &Rule{}}))
		default:
			if f.typ.PkgPath() == t.PkgPath() && f.typ.Kind() == reflect.Struct {
				describe(all, key, value)
			}
		}
	}
	for i := range sec.fields {
		sec.byKey[sec.fields[i].key] = &sec.fields[i]
	}
	return all
}

// keys lists the keys of a section for a message.
func (s *section) keys() string {
	keys := make([]string, len(s.fields))
	for i, f := range s.fields {
		keys[i] = f.key
	}
	return strings.Join(keys, ", ")
}

// unknown says what to do about a key that this section does not have.
func (s *section) unknown(key string) string {
	best, distance := "", 3
	for _, f := range s.fields {
		if d := edits(key, f.key); d < distance && d < len(f.key)/2+1 {
			best, distance = f.key, d
		}
	}
	if best != "" {
		return fmt.Sprintf("unknown key %.40q; did you mean %q?", key, best)
	}
	for _, other := range sections {
		if f := other.byKey[key]; f != nil && other.name != "" && other.name != "alias" && other.name != "domain" {
			return fmt.Sprintf("unknown key %q here; it belongs under %q", key, other.name)
		}
	}
	return fmt.Sprintf("unknown key %.40q; the keys here are %s", key, s.keys())
}

// edits is the Levenshtein distance of two keys; long ones are just far.
func edits(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// notation writes a default the way the file does.
func notation(v any) string {
	switch v := v.(type) {
	case []string:
		text, _ := json.Marshal(v)
		return string(text)
	case int64:
		for _, unit := range sizeUnits {
			if unit.suffix != "B" && v != 0 && v%unit.octets == 0 && v/unit.octets < 1024 {
				return fmt.Sprintf("%d%s", v/unit.octets, unit.suffix)
			}
		}
		return fmt.Sprintf("%dB", v)
	case time.Duration:
		if v%(24*time.Hour) == 0 {
			return fmt.Sprintf("%dd", v/(24*time.Hour))
		}
		return fmt.Sprintf("%ds", v/time.Second)
	}
	return fmt.Sprint(v)
}
