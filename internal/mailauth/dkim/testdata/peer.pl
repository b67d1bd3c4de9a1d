# Verifies messages with Mail::DKIM (libmail-dkim-perl); see peer.py.
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Mail::DKIM::DNS;

my %zone;
open my $keys, '<', $ARGV[0] or die "$ARGV[0]: $!";
while (<$keys>) { chomp; my ($name, $record) = split /\t/, $_, 2; $zone{$name} = $record; }

package Answer { sub type { 'TXT' } sub txtdata { $_[0]{txt} } }

{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query_async = sub {
        my ($name, $type, %rest) = @_;
        my $record = $zone{lc $name};
        my @found = defined $record ? bless({ txt => $record }, 'Answer') : ();
        return sub { $rest{Callbacks}{Success}->(@found) };
    };
}

binmode STDIN;
$| = 1;
print "ready\n";
while (defined(my $length = <STDIN>)) {
    read(STDIN, my $message, $length);
    my @words;
    eval {
        my $verifier = Mail::DKIM::Verifier->new;
        $verifier->PRINT($message);
        $verifier->CLOSE;
        for my $signature ($verifier->signatures) {
            (my $b = $signature->data // '') =~ s/[^0-9A-Za-z+\/=]//g;
            push @words, substr($b, 0, 16) . '=' . ($signature->result || 'none');
        }
    };
    print join(' ', @words), "\n";
}
