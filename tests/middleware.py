"""What the tests put around every answer."""


def strict_csp(get_response):
    """Forbid inline scripts, inline styles and other hosts, as careful projects do."""

    def answer(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer
