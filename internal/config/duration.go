package config

import "time"

// ParseDuration reads a time as the configuration writes it: 14d, 36h, 45s.
func ParseDuration(text string) (time.Duration, error) { return parseDuration(text) }
