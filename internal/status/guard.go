package status

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The policy of all pages: nothing but our own style, script and picture, no
// script or style within a page, no frame around it, forms to nobody else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// cookieName is of the cookie that stands for the token. What is in it is made
// from the token, which itself is in no browser.
const (
	cookieName = "onward"
	cookieLife = 12 * time.Hour
)

// guard lets through what may be asked. In this order: limits, headers, the name
// by which we were called, where a change comes from, the token.
func (p *Page) guard(next http.Handler, open bool) http.Handler {
	next = p.tokenFirst(next, open)
	next = http.NewCrossOriginProtection().Handler(next)
	next = p.calledByName(next)
	next = http.MaxBytesHandler(next, maxBody)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		ctx, cancel := context.WithTimeout(r.Context(), pageTime)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// hostOf is the name or address by which a request called us.
func hostOf(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// calledByName refuses requests to a name that is not ours. A page of somebody
// else whose name was made to point here (DNS rebinding) would otherwise read as
// we do; addresses have no such names.
func (p *Page) calledByName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r)
		_, notAddress := netip.ParseAddr(host)
		if notAddress != nil && host != "localhost" && host != p.Config().Hostname.String() && !slices.Contains(p.Hosts, host) {
			http.Error(w, "This server is not known by that name. Call it by its address or as localhost, or add the name to admin.hosts.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// tokenFirst asks for the token: for changes always, and for all the rest where
// others can reach us, or a proxy may bring them. What the form for it needs is for everybody.
func (p *Page) tokenFirst(next http.Handler, open bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known, open := p.knows(r), open && !p.isPassedOn(r)
		who := access{reads: known || open, acts: known}
		switch {
		case known || r.URL.Path == "/login" || r.URL.Path == "/style.css" || r.URL.Path == "/icon.svg":
		case open && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		case r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="onward"`)
			http.Error(w, "This needs the token that is in admin.token_file.", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), access{}, who)))
	})
}

// isPassedOn reports whether a proxy on this machine speaks for somebody who may
// be elsewhere: it says so, or we were called by a name that was given for it.
func (p *Page) isPassedOn(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return slices.Contains(p.Hosts, hostOf(r))
}

// access is what a request may do; its type is the key for it in a context.
type access struct{ reads, acts bool }

func accessOf(r *http.Request) access {
	who, _ := r.Context().Value(access{}).(access)
	return who
}

// knows reports whether a request has the token, or a cookie for it.
func (p *Page) knows(r *http.Request) bool {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return p.isToken(token)
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil || p.Token == "" {
		return false
	}
	until, mac, _ := strings.Cut(cookie.Value, ".")
	end, err := strconv.ParseInt(until, 10, 64)
	return err == nil && p.now().Unix() < end && subtle.ConstantTimeCompare([]byte(mac), []byte(p.seal(until))) == 1
}

// isToken compares sums, so that not even the length of the token shows in how
// long it takes.
func (p *Page) isToken(s string) bool {
	got, want := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(p.Token))
	return p.Token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// seal proves that a cookie was made with the token. Another token ends all
// sessions.
func (p *Page) seal(until string) string {
	mac := hmac.New(sha256.New, []byte(p.Token))
	mac.Write([]byte("onward status page until " + until))
	return hex.EncodeToString(mac.Sum(nil))
}

// login shows the form for the token.
func (p *Page) login(*http.Request) (view, error) {
	return view{Name: "login", Title: "Sign in", Data: p.Token != ""}, nil
}

// enter takes the token from the form and gives the cookie.
func (p *Page) enter(r *http.Request) (view, error) {
	if !p.isToken(strings.TrimSpace(r.PostFormValue("token"))) {
		p.Log.Warn("status page: wrong token", "peer", r.RemoteAddr)
		return view{Name: "login", Title: "Sign in", Code: http.StatusForbidden, Note: "That is not the token.", Data: true}, nil
	}
	until := strconv.FormatInt(p.now().Add(cookieLife).Unix(), 10)
	return view{Go: "/", Cookie: cookie(r, until+"."+p.seal(until), cookieLife)}, nil
}

// leave takes the cookie back.
func (p *Page) leave(r *http.Request) (view, error) {
	return view{Go: "/", Cookie: cookie(r, "", -time.Second)}, nil
}

func cookie(r *http.Request, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: int(life.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	}
}
