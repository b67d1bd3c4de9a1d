package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"onward/internal/config"
)

func healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Exit with 0 when the daemon answers, for HEALTHCHECK",
		Long: `Connect to the first listening address of the configuration and expect the
greeting that a sender would get.`,
		Example: "  onward health -c /etc/onward/onward.yaml",
		Args:    noOperands,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			flag, _ := cmd.Flags().GetString("config")
			path, err := config.Find(flag)
			if err != nil {
				return err
			}
			// A daemon goes on with its old configuration while a person is
			// half way through the new one, so mistakes in it do not count.
			cfg, _ := config.Load(path)
			if len(cfg.Listen) == 0 {
				return errors.New("the configuration names no address to listen on")
			}
			return greeted(cfg.Listen[0])
		}),
	}
}

// greeted connects to a listening address and reads its greeting.
func greeted(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	c, err := net.DialTimeout("tcp", net.JoinHostPort(host, port), 5*time.Second)
	if err != nil {
		return fmt.Errorf("nobody answers on %s; is onward serve running? (%w)", addr, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReaderSize(c, 512).ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s: no greeting: %w", addr, err)
	}
	if !strings.HasPrefix(line, "220 ") && !strings.HasPrefix(line, "421 ") { // 421: alive, and full
		return fmt.Errorf("%s: not an SMTP server: %q", addr, strings.TrimSpace(line))
	}
	_, err = c.Write([]byte("QUIT\r\n"))
	return err
}
