# Perl's Mail::DKIM::ARC as a peer: one JSON request a line, one answer a line.
use strict;
use warnings;
use JSON::PP;
use MIME::Base64;
use Net::DNS;
use Mail::DKIM::DNS;
use Mail::DKIM::PrivateKey;
use Mail::DKIM::ARC::Signer;
use Mail::DKIM::ARC::Verifier;

# Names are looked up in the request, never in the DNS.
package Zone;
sub send {
    my ($self, $name) = @_;
    my $packet = Net::DNS::Packet->new($name, 'TXT');
    $packet->header->qr(1);
    if (my $text = $self->{$name}) {
        my @strings = $text =~ /.{1,200}/g;
        $packet->push(answer => Net::DNS::RR->new(owner => $name, type => 'TXT', txtdata => \@strings));
    } else {
        $packet->header->rcode('NXDOMAIN');
    }
    return $packet;
}
sub errorstring { return 'NXDOMAIN' }

package main;

sub verify {
    my ($q) = @_;
    Mail::DKIM::DNS::resolver(bless { %{ $q->{dns} } }, 'Zone');
    my $verifier = Mail::DKIM::ARC::Verifier->new(Strict => 1);
    $verifier->PRINT(decode_base64($q->{message}));
    $verifier->CLOSE;
    my $result = $verifier->result;
    $result = 'fail' if $result eq 'invalid';
    return { result => $result, reason => $verifier->result_detail };
}

sub seal {
    my ($q) = @_;
    my $pem = $q->{key};
    $pem =~ s/-----[^-]+-----|\s//g;
    my $signer = Mail::DKIM::ARC::Signer->new(
        Algorithm => 'rsa-sha256', Chain => $q->{chain}, Domain => $q->{domain}, SrvId => $q->{domain},
        Selector => $q->{selector}, Timestamp => $q->{time}, Key => Mail::DKIM::PrivateKey->load(Data => $pem));
    $signer->PRINT(decode_base64($q->{message}));
    $signer->CLOSE;
    die $signer->result . ' ' . ($signer->{details} // '') if $signer->result ne 'sealed';
    return { fields => encode_base64(join('', map { "$_\r\n" } $signer->as_strings), '') };
}

$| = 1;
while (my $line = <STDIN>) {
    my $q = decode_json($line);
    my $answer = eval { $q->{op} eq 'verify' ? verify($q) : seal($q) } || { error => "$@" };
    print encode_json($answer), "\n";
}
