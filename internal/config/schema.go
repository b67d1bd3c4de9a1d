package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"time"

	"onward/internal/address"
)

// An object is one JSON object of the schema. Its keys come out sorted.
type object = map[string]any

// Schema returns the JSON Schema (draft 2020-12) of onward.yaml, for editors:
// it knows every key, type, bound and description, and the form of sizes and
// times. What needs more than one value or another file, only Load knows.
func Schema() []byte {
	root := sections[reflect.TypeFor[Config]()].schema()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "onward.yaml"
	root["description"] = "The configuration of onward, an inbound e-mail forwarder."
	root["required"] = []string{"hostname", "postmaster"}
	root["anyOf"] = []object{{"required": []string{"domains"}}, {"required": []string{"include"}}}
	root["$defs"] = object{"domain": domainSchema(), "alias": aliasSchema()}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err) // maps, texts and numbers only
	}
	return append(text, '\n')
}

// schema describes a section; unknown keys are errors there as in Load.
func (s *section) schema() object {
	properties := object{}
	for i := range s.fields {
		properties[s.fields[i].key] = s.fields[i].schema()
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false}
}

func domainSchema() object {
	o := sections[reflect.TypeFor[Domain]()].schema()
	o["oneOf"] = []object{{"required": []string{"aliases"}}, {"required": []string{"same_as"}}}
	return o
}

// aliasSchema allows the two short forms, and the long one with one end.
func aliasSchema() object {
	o := sections[reflect.TypeFor[Alias]()].schema()
	o["oneOf"] = []object{{"required": []string{"to"}}, {"required": []string{"reject"}}, {"required": []string{"discard"}}}
	return object{"anyOf": []object{oneOrMore(object{"type": "string", "minLength": 1}), o}}
}

// schema describes one key.
func (f *field) schema() object {
	o := f.typeSchema()
	o["description"] = f.description()
	return o
}

func (f *field) description() string {
	if f.fallback == "required" || f.example == "" {
		return f.doc
	}
	return f.doc + " Default: " + f.fallback + ". Example: " + f.example
}

// typeSchema is the JSON type that Load takes for the key.
func (f *field) typeSchema() object {
	if sec := sections[f.typ]; sec != nil {
		return sec.schema()
	}
	text := object{"type": "string", "minLength": 1}
	if f.is == "url" {
		text = object{"type": "string"}
	}
	switch reflect.Zero(f.typ).Interface().(type) {
	case []*Domain:
		return object{"type": "object", "additionalProperties": object{"$ref": "#/$defs/domain"}}
	case []*Alias:
		return object{"type": "object", "additionalProperties": object{"$ref": "#/$defs/alias"}}
	case []string, []netip.AddrPort:
		if f.fallback == "none" {
			return object{"anyOf": []object{text, {"type": "array", "items": text, "uniqueItems": true}}}
		}
		return oneOrMore(text)
	case bool:
		if f.key == "discard" {
			return object{"const": true}
		}
		return object{"type": "boolean"}
	case int:
		return object{"type": "integer", "minimum": json.Number(f.least()), "maximum": json.Number(f.max)}
	case int64:
		return object{"anyOf": []object{{"const": 0}, {"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$"}}}
	case time.Duration:
		return object{"type": "string", "pattern": "^[0-9]+[smhd]$"}
	case time.Time:
		return object{"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
	case address.Mailbox:
		return object{"type": "string", "pattern": "@"}
	case netip.Addr:
		return object{"type": "string"}
	}
	switch {
	case f.enum != nil:
		return object{"enum": f.enum}
	case f.is == "line":
		return object{"type": "string", "pattern": "^[ -~]+$", "maxLength": maxReject}
	}
	return text
}

// oneOrMore is a list, or a single value in its place.
func oneOrMore(item object) object {
	return object{"anyOf": []object{item, {"type": "array", "items": item, "minItems": 1, "uniqueItems": true}}}
}
